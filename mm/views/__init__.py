"""What people look at: console, reports, alerts' texts. Reads snapshots, never acts."""
