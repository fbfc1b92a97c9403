#!/usr/bin/env bash
# A private CA and a server certificate for trying TLS: certs.sh FOLDER HOST
set -euo pipefail
folder=${1:?usage: certs.sh FOLDER HOST}
host=${2:?usage: certs.sh FOLDER HOST}
mkdir -p "$folder"
cd "$folder"
openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=agent2389 trial CA" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=$host" -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\n' "$host" >server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile server.ext -out server.crt 2>/dev/null
chmod 600 ca.key server.key
rm server.csr server.ext
