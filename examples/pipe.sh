#!/bin/sh
# From a folder of songs to bars, to latents, and back to sound, step by step in one store.
# usage: sh examples/pipe.sh FOLDER [STORE] [OUT]
set -eu
folder=${1:?usage: sh examples/pipe.sh FOLDER [STORE] [OUT]}
store=${2:-songs.zarr}
out=${3:-decoded}

mgen filter "$folder" -o "$store" | mgen segment-bars | mgen tokenize | mgen decode -o "$out"
mgen info "$store"
mgen check --deep "$store"
