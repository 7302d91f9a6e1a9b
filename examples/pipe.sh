#!/bin/sh
# From a folder of songs to bars in one store, step by step.
# usage: sh examples/pipe.sh FOLDER [STORE]
set -eu
folder=${1:?usage: sh examples/pipe.sh FOLDER [STORE]}
store=${2:-songs.zarr}

mgen filter "$folder" -o "$store" | mgen segment-bars | mgen info
mgen check --deep "$store"
