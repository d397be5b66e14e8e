#!/bin/bash
# class: exhaustion
# tries: print without end
# must: be cut, and cost neither the loop nor the journal their memory
# ends: the call ends by the limit of output or of time; the result is small; the next call works
# tells: output limit of
# bare: would take this machine down where nothing limits it

yes CANARY-flood
