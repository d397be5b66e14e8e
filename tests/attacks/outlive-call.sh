#!/bin/bash
# class: exhaustion
# tries: leave a process behind that works on after its session ended
# must: be ended with its room
# ends: allowed while the room lives, within its share of the processor; gone with the room

setsid bash -c 'while :; do :; done' > /dev/null 2>&1 < /dev/null &
disown
echo "left one behind"
