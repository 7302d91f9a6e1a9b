#!/bin/sh
# The whole pipe: from a folder of songs to actions, to a model that writes bars, to an edit.
# usage: sh examples/actions.sh FOLDER SONG [WORK]
# LAM_STEPS and DYNAMICS_STEPS say how long to train; a GPU, or a night, is well spent here.
set -eu
folder=${1:?usage: sh examples/actions.sh FOLDER SONG [WORK]}
song=${2:?usage: sh examples/actions.sh FOLDER SONG [WORK]}
work=${3:-actions}
mkdir -p "$work"

mgen filter "$folder" -o "$work/songs.zarr" | mgen segment-bars --jitter 1 | mgen tokenize \
    | mgen train-lam -o "$work/lam" --bottleneck style --actions 64 --top-k 3 \
        --steps "${LAM_STEPS:-5000}" \
    | mgen train-dynamics -o "$work/dynamics" --steps "${DYNAMICS_STEPS:-20000}" \
    | mgen actions
mgen edit "$song" --bars 5-8 --action 17 --lam "$work/lam" --dynamics "$work/dynamics" \
    -o "$work/edit.wav" --plot "$work/edit.png" --force
