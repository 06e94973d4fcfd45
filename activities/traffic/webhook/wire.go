package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// The headers of a request.
const (
	HeaderKey       = "Idempotency-Key"
	HeaderTimestamp = "X-Aviary-Timestamp"
	HeaderSignature = "X-Aviary-Signature"
)

// Sign is the signature of a request that was sent at timestamp (seconds since 1970, as in the header): "v2=" and the hex HMAC-SHA256 of
// timestamp + "." + method + " " + path + "." + body. The path is escaped and has no query.
func Sign(secret []byte, timestamp, method, path string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp + "." + method + " " + path + "."))
	mac.Write(body)
	return "v2=" + hex.EncodeToString(mac.Sum(nil))
}

// route is the body of PUT {url}/v1/agents/{agent}/route: the whole desired state.
type route struct {
	Stable      string `json:"stable"`
	Canary      string `json:"canary"`             // empty: none
	Weight      int    `json:"weight"`             // the canary's share in basis points, 0 to 10000
	Owner       string `json:"owner"`              // the rollout
	Revision    int64  `json:"revision"`           // only grows
	LeaseMillis int64  `json:"lease_ms"`           // how long the canary may have traffic without another PUT; 0: for ever
	Rollback    bool   `json:"rollback,omitempty"` // the canary is being taken back
	Promoted    bool   `json:"promoted,omitempty"` // stable was the canary and stays
}

// wire is the route as receivers take it. A lease is rounded up: 0 would be for ever.
func wire(r rollout.Route) route {
	return route{
		Stable: r.Stable, Canary: r.Canary, Weight: int(r.Weight), Owner: r.Owner, Revision: r.Revision,
		LeaseMillis: int64((r.Lease.Std() + time.Millisecond - 1) / time.Millisecond), Rollback: r.Rollback, Promoted: r.Promoted,
	}
}

// observed is the answer of GET {url}/v1/agents/{agent}/route.
type observed struct {
	Agent        string   `json:"agent"`
	Stable       string   `json:"stable"`
	Canary       string   `json:"canary"`
	Weight       int      `json:"weight"`           // as set, in basis points
	Effective    int      `json:"effective_weight"` // as in force: 0 once the lease has run out
	Owner        string   `json:"owner"`            // empty: nobody has set a route
	Revision     int64    `json:"revision"`
	LeaseExpired bool     `json:"lease_expired"`
	Versions     []string `json:"versions"` // that the receiver knows; absent: it does not know
}

func (o observed) traffic() traffic.Observed {
	return traffic.Observed{
		Agent: o.Agent, Stable: o.Stable, Canary: o.Canary, Weight: rollout.Weight(o.Weight), Effective: rollout.Weight(o.Effective),
		Owner: o.Owner, Revision: o.Revision, LeaseExpired: o.LeaseExpired, Versions: o.Versions,
	}
}

// list is the answer of GET {url}/v1/agents.
type list struct {
	Agents []observed `json:"agents"`
}

// failure is the answer of any request that is not taken. Owner and Revision are of a 409.
type failure struct {
	Error    string `json:"error"`
	Owner    string `json:"owner"`
	Revision int64  `json:"revision"`
}
