#!/bin/bash
# class: processes
# tries: run on by ignoring every signal that can be ignored, in another session and process group
# must: be ended when its call is
# ends: its call is stopped after two seconds; then `kill -0 $(cat /tmp/attack-stubborn)` must fail
# tells: was interrupted before completion

( trap '' TERM INT HUP QUIT USR1 USR2; exec setsid bash -c 'trap "" TERM INT HUP; echo $$ > /tmp/attack-stubborn; while :; do sleep 1; done' ) &
wait
