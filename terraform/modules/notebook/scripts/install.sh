#!/bin/bash
# Installs the package bundle as the Jupyter kernel "dogbreed". Needs S3, but no internet: all wheels are in the bundle.
# An environment of its own: beside newer wheels, conda's packages would be a mix that nobody has tried.
#
#   install.sh <s3 address> <sha256> <python> <folder>
set -euo pipefail
uri=$1 sha256=$2 python=$3 folder=$4

wanted="$sha256 $("$python" -c 'import sys; print(sys.prefix, sys.version.split()[0])')"
if [ "$(cat "$folder/installed" 2> /dev/null)" = "$wanted" ]; then
  echo "Already installed: $wanted"
  exit
fi

rm -rf "$folder"
mkdir -p "$folder/bundle"
aws s3 cp --only-show-errors "$uri" "$folder/bundle.tar.gz"
echo "$sha256  $folder/bundle.tar.gz" | sha256sum --check --quiet
tar --extract --gzip --no-same-owner --file "$folder/bundle.tar.gz" --directory "$folder/bundle"
rm "$folder/bundle.tar.gz"

"$python" -m venv "$folder/venv"
cd "$folder/bundle"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-index --find-links wheels --requirement requirements.txt

# The package itself lies in the bundle as a folder; this makes it importable.
site_packages=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$folder/bundle" > "$site_packages/dogbreed.pth"

"$folder/venv/bin/python" -m ipykernel install --user --name dogbreed --display-name dogbreed
echo "$wanted" > "$folder/installed"
echo "Installed: $wanted"
