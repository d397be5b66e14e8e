#!/bin/bash
# class: exhaustion
# tries: fork without end
# must: be stopped by the limit of processes, and leave neighbours alone
# ends: the next call of the session works, and the neighbour's meanwhile
# tells: Resource temporarily unavailable
# bare: would take this machine down where nothing limits it

bomb() { bomb | bomb & }
bomb
sleep 5
