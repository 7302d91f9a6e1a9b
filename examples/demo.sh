#!/bin/sh
# What `make demo` runs: a song to bars, and to a beat map, with pictures of both.
# usage: sh examples/demo.sh SONG FOLDER
set -eu
song=${1:?usage: sh examples/demo.sh SONG FOLDER}
out=${2:?usage: sh examples/demo.sh SONG FOLDER}
mkdir -p "$out"

mgen filter "$song" -o "$out/demo.zarr" | mgen segment-bars | mgen info --plot "$out/bars.png" --force
mgen beatmap "$song" --difficulty all -o "$out/demo.zip" --force
mgen check "$out/demo.zip"
mgen info "$out/demo.zip" --plot "$out/map.png" --force
echo "look at $out/bars.png and $out/map.png; $out/demo.zip goes into the game's CustomLevels" >&2
