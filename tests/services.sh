#!/bin/sh
# Install the servers that the tests start on loopback, from Debian's packages, where they are missing.
set -eu

if [ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ]; then
    echo "the tests need PostgreSQL's server: ask root for 'apt-get install postgresql'" >&2
    exit 1
fi
apt-get update -qq
# policy-rc.d or not: the tests start a server of their own and never use the packaged one
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
