#!/bin/sh
# Writes the secret files of docker-compose.yml: random passwords, the addresses that hold them, and one
# file per model or tool key (from the variable of that name, else empty). Existing files stay as they are.
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
# The folder keeps other people of this machine out. The files are readable, because each container sees
# its own files only, under a user id that is not yours.
chmod 0700 "$folder"

put() {
    if [ ! -e "$folder/$1" ]; then
        printf '%s' "$2" >"$folder/$1"
        chmod 0444 "$folder/$1"
    fi
}

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

for name in postgres_password agent_password operator_password mongodb_password api_token; do
    put "$name" "$(random)"
done
put admin_database_url "postgresql://mesh_admin:$(cat "$folder/postgres_password")@postgres:5432/mesh"
put agent_database_url "postgresql://mesh_agent:$(cat "$folder/agent_password")@postgres:5432/mesh"
put operator_database_url "postgresql://mesh_operator:$(cat "$folder/operator_password")@postgres:5432/mesh"
# Empty until somebody runs the mongo profile and writes the address in; README.md here shows how.
put mongodb_url "${MONGODB_URL:-}"
put neo4j_auth "neo4j/$(random)"
put openai_api_key "${OPENAI_API_KEY:-}"
put anthropic_api_key "${ANTHROPIC_API_KEY:-}"
put google_api_key "${GOOGLE_API_KEY:-}"
put serper_api_key "${SERPER_API_KEY:-}"
put tavily_api_key "${TAVILY_API_KEY:-}"
put webhook_url "${AGENT2389_WEBHOOK_URL:-}"
put webhook_secret "${AGENT2389_WEBHOOK_SECRET:-}"
