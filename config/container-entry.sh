#!/bin/sh
# The first process of the container. It passes signals on to the bot, and stays after the bot's end until the guardian
# is gone too: when a container's first process ends, the kernel kills all others, and a bot that was killed has a guardian
# at work on its orders.
python -m mm "$@" &
bot=$!
trap 'kill -TERM "$bot" 2>/dev/null' TERM INT
trap 'kill -HUP "$bot" 2>/dev/null' HUP

guardian_is_there() {
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q -- '-m mm guard'; then
            return 0
        fi
    done
    return 1
}

# `wait` returns early when a signal has come: then the bot is still there.
wait "$bot"
code=$?
while kill -0 "$bot" 2>/dev/null; do
    wait "$bot"
    code=$?
done
while guardian_is_there; do
    sleep 0.2
done
exit "$code"
