#!/usr/bin/env bash
# A private CA and a server certificate: certs.sh FOLDER HOST [DAYS]
# A CA that is already there signs the new certificate, so renewing changes nothing for clients.
set -euo pipefail
folder=${1:?usage: certs.sh FOLDER HOST [DAYS]}
host=${2:?usage: certs.sh FOLDER HOST [DAYS]}
days=${3:-365}
umask 077 # keys are readable for nobody else at any moment
mkdir -p "$folder"
cd "$folder"
if [ ! -e ca.key ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=agent2389 private CA" -keyout ca.key -out ca.crt 2>/dev/null
fi
openssl req -newkey rsa:2048 -nodes -subj "/CN=$host" -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\n' "$host" >server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -extfile server.ext -out server.crt 2>/dev/null
rm server.csr server.ext
chmod 644 ca.crt server.crt # everybody may see certificates; clients need ca.crt
