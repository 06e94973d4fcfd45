package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/aviary-rollouts/aviary/rollout"
)

// AgentLabel is on every object whose weights are an agent's. A platform team may set it beforehand; else the first rollout
// does.
const AgentLabel = "aviary.dev/agent"

// The annotations: what was set last.
const (
	ownerKey    = "aviary.dev/owner"
	revisionKey = "aviary.dev/revision"
	ruleKey     = "aviary.dev/rule"
	stableKey   = "aviary.dev/stable"
	stableAtKey = "aviary.dev/stable-destination"
	canaryKey   = "aviary.dev/canary"
	canaryAtKey = "aviary.dev/canary-destination"
	weightKey   = "aviary.dev/weight"
	expiredKey  = "aviary.dev/expired" // the revision whose lease ran out
)

// On a lease, besides: which object it is of.
const (
	kindKey   = "aviary.dev/kind"
	objectKey = "aviary.dev/object"
)

// record is what was set last, as it is written beside the weights, and on the lease.
type record struct {
	owner              string
	revision           int64
	rule               string
	stable, canary     string
	stableAt, canaryAt rollout.Destination // after a promotion canaryAt is where the next canary comes to
	weight             rollout.Weight
	expired            bool // the guard has taken this revision's traffic back
}

// annotations of a record. Expired has none unless it is true.
func (r record) annotations() map[string]string {
	out := map[string]string{
		ownerKey: r.owner, revisionKey: strconv.FormatInt(r.revision, 10), ruleKey: r.rule,
		stableKey: r.stable, stableAtKey: r.stableAt.String(), canaryKey: r.canary, canaryAtKey: r.canaryAt.String(),
		weightKey: strconv.Itoa(int(r.weight)),
	}
	if r.expired {
		out[expiredKey] = out[revisionKey]
	}
	return out
}

// recordOf is the record in annotations, and whether there is one. Errors: one that Aviary did not write.
func recordOf(annotations map[string]string) (record, bool, error) {
	if annotations[stableKey] == "" || annotations[ownerKey] == "" {
		return record{}, false, nil
	}
	revision, err := strconv.ParseInt(annotations[revisionKey], 10, 64)
	if err != nil {
		return record{}, false, fmt.Errorf("annotation %s is %q, want the number that Aviary wrote", revisionKey, annotations[revisionKey])
	}
	weight, err := strconv.Atoi(annotations[weightKey])
	if err != nil {
		return record{}, false, fmt.Errorf("annotation %s is %q, want the basis points that Aviary wrote", weightKey, annotations[weightKey])
	}
	return record{
		owner: annotations[ownerKey], revision: revision, rule: annotations[ruleKey],
		stable: annotations[stableKey], stableAt: destinationOf(annotations[stableAtKey]),
		canary: annotations[canaryKey], canaryAt: destinationOf(annotations[canaryAtKey]),
		weight: rollout.Weight(weight), expired: annotations[expiredKey] == annotations[revisionKey],
	}, true, nil
}

// destinationOf is the inverse of Destination.String.
func destinationOf(s string) rollout.Destination {
	host, subset, _ := strings.Cut(s, "/")
	return rollout.Destination{Host: host, Subset: subset}
}

// maxName is the most that a name of Kubernetes may have, in bytes.
const maxName = 253

// leaseName is the name of the lease of an object, in its namespace.
func leaseName(kind Kind, object string) string {
	name := "aviary-" + kind.Short + "-" + object
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(object))
	return strings.TrimRight(name[:maxName-17], "-.") + "-" + hex.EncodeToString(sum[:8])
}
