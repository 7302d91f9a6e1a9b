#!/bin/sh
# What `make demo` runs: a song to bars, to an edit of four of them and a sheet of all actions, and to
# a beat map, with pictures.
# usage: sh examples/demo.sh SONG FOLDER
set -eu
song=${1:?usage: sh examples/demo.sh SONG FOLDER}
out=${2:?usage: sh examples/demo.sh SONG FOLDER}
mkdir -p "$out"
export MGEN_CACHE="$out/cache"

mgen filter "$song" -o "$out/demo.zarr" | mgen segment-bars | mgen info --plot "$out/bars.png" --force
mgen edit "$song" --bars 8-11 --action 17 -o "$out/edit.wav" --plot "$out/edit.png" --force
mgen beatmap "$song" --difficulty all -o "$out/demo.zip" --force
mgen check "$out/demo.zip"
mgen info "$out/demo.zip" --plot "$out/map.png" --force
mgen actions "$song" --audition "$out/actions" --contexts 1
echo "listen to $out/edit.wav, and to what each action does in $out/actions/index.html;" \
    "look at $out/bars.png, $out/edit.png and $out/map.png; $out/demo.zip goes into the game's" \
    "CustomLevels" >&2
