#!/usr/bin/env bash
# The whole demo; what is already there is not made again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for step in prepare train evaluate; do
  bash "$here/$step.sh"
done
