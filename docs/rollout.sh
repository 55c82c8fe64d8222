#!/usr/bin/env bash
# Proves that a rollout of the backend drops no request; `kubectl rollout status` says when it is over.
# Exit codes: 0 if no call failed; 1 if one did; 3 if the rollout did not end in time; 4 if the caller did not
# start, or ended too early.
set -u
ns=${NAMESPACE:-pod-to-pod-communication} log=$(mktemp)
trap 'kill "$caller" 2>/dev/null; rm -f "$log"' EXIT

kubectl exec -n "$ns" deployment/frontend -- caller --interval 20ms --duration 10m >"$log" &
caller=$!
for _ in $(seq 50); do
    grep -q 'Response received successfully!' "$log" && break
    sleep 0.2
done
grep -q 'Response received successfully!' "$log" || exit 4

kubectl rollout restart -n "$ns" deployment/backend || exit 3
kubectl rollout status -n "$ns" deployment/backend --timeout=5m || exit 3
# The old pods may still answer while they drain.
sleep 25
kill -0 "$caller" || exit 4
failed=$(grep -c '^Call failed: ' "$log")
echo "$(grep -c '^=== ' "$log") calls, $failed failed"
[ "$failed" -eq 0 ]
