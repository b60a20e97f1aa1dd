#!/bin/sh
# Keys of a federation on this machine: ./certificates.sh FOLDER NUMBER_OF_SUPERNODES. For one over several machines, put their names
# into subjectAltName, and let every member make its own key.
set -eu
mkdir -p "$1" && cd "$1"
openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj "/CN=cooperative CA" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:3072 -nodes -subj "/CN=localhost" -keyout server.key -out server.csr 2>/dev/null
echo "subjectAltName=DNS:localhost,IP:127.0.0.1" > server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile server.ext -out server.crt 2>/dev/null
i=0
while [ "$i" -lt "$2" ]; do
  ssh-keygen -q -t ecdsa -b 384 -N "" -C "member $i" -f "member-$i"
  i=$((i + 1))
done
