package flagd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router"
)

// definition is a flag as flagd reads it, with what this driver sets of it.
type definition struct {
	State          string            `json:"state"`
	Variants       map[string]string `json:"variants"` // router.FlagdStable and router.FlagdCanary: the versions
	DefaultVariant string            `json:"defaultVariant"`
	Targeting      json.RawMessage   `json:"targeting,omitempty"`
	Metadata       *metadata         `json:"metadata,omitempty"` // nil: no rollout has ever set the flag
}

// metadata is what was set, beside the flag. Flagd takes plain values only.
type metadata struct {
	Agent       string `json:"aviary_agent"`
	Stable      string `json:"aviary_stable,omitempty"` // as set; what the variant says may have been changed
	Owner       string `json:"aviary_owner"`
	Revision    int64  `json:"aviary_revision"`
	Canary      string `json:"aviary_canary"`   // of this rollout, or the one before; empty after a promotion
	Weight      int    `json:"aviary_weight"`   // as set, in basis points
	LeaseMillis int64  `json:"aviary_lease_ms"` // 0: for ever
	Expired     bool   `json:"aviary_expired"`  // the lease ran out, so that all is stable's
}

// served is the weight in force.
func (m *metadata) served() int {
	if m.Expired {
		return 0
	}
	return m.Weight
}

// define is the flag for a route. The salt is the owner, so that every rollout has other guinea pigs and keeps its own. Errors: a weight
// that can't be.
func define(r rollout.Route) (definition, error) {
	return build(r.Stable, metadata{
		Agent: r.Agent, Stable: r.Stable, Owner: r.Owner, Revision: r.Revision, Canary: r.Canary, Weight: int(r.Weight),
		LeaseMillis: int64((r.Lease.Std() + time.Millisecond - 1) / time.Millisecond),
	})
}

func build(stable string, m metadata) (definition, error) {
	d := definition{
		State: "ENABLED", Variants: map[string]string{router.FlagdStable: stable}, DefaultVariant: router.FlagdStable, Metadata: &m,
	}
	if m.served() == 0 {
		return d, nil
	}
	d.Variants[router.FlagdCanary] = m.Canary
	rule, err := router.FlagdTargeting(m.Owner, m.served())
	if err != nil {
		return definition{}, fmt.Errorf("define the flag: %w", err)
	}
	d.Targeting = rule
	return d, nil
}

// parse reads a flag. Errors: it is none that tells versions, so it must not be touched. One that a rollout has set is read whatever somebody
// has made of it since: its canary must be found to be taken back.
func parse(key string, raw []byte) (definition, error) {
	var loose struct {
		State          any             `json:"state"`
		Variants       map[string]any  `json:"variants"`
		DefaultVariant any             `json:"defaultVariant"`
		Targeting      json.RawMessage `json:"targeting"`
		Metadata       json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &loose); err != nil {
		return definition{}, fmt.Errorf("flag %q is no choice of a version: %w; want variants such as {\"stable\": \"v41\"}", key, err)
	}
	d := definition{Variants: map[string]string{}, Targeting: loose.Targeting}
	d.State, _ = loose.State.(string)
	d.DefaultVariant, _ = loose.DefaultVariant.(string)
	var others error
	for name, value := range loose.Variants {
		if version, ok := value.(string); ok {
			d.Variants[name] = version
		} else {
			others = fmt.Errorf("flag %q is no choice of a version: its variant %q is none; want variants such as {\"stable\": \"v41\"}", key, name)
		}
	}
	var m metadata
	_ = json.Unmarshal(loose.Metadata, &m) // what somebody has made nonsense of is as if it were not there
	if m.Agent != "" {
		d.Metadata = &m
		return d, nil
	}
	if others != nil {
		return d, others
	}
	if !rollout.ValidName(d.Variants[router.FlagdStable]) {
		return d, fmt.Errorf("flag %q has no variant %q that names a version, want variants such as {\"stable\": \"v41\"}", key, router.FlagdStable)
	}
	return d, nil
}

// stable is the version that has all traffic without a canary.
func (d definition) stable() string {
	if m := d.Metadata; m != nil && m.Stable != "" {
		return m.Stable
	}
	return d.Variants[router.FlagdStable]
}

// observe says what the flag does.
func (d definition) observe(agent string, object *rollout.Object) traffic.Observed {
	o := traffic.Observed{Agent: agent, Object: object, Stable: d.stable()}
	if d.Metadata == nil {
		if len(d.Targeting) > 0 && !empty(d.Targeting) || d.DefaultVariant != router.FlagdStable {
			o.Drift = "the flag already has a rule that is not Aviary's"
		}
		return o
	}
	m := *d.Metadata
	o.Owner, o.Revision, o.Canary = m.Owner, m.Revision, m.Canary
	o.Weight, o.Effective, o.LeaseExpired = rollout.Weight(m.Weight), rollout.Weight(m.served()), m.Expired && m.Weight > 0
	if want, err := build(o.Stable, m); err != nil || !d.serves(want) {
		o.Drift = "the flag is not as it was set: its state, variants or targeting were changed"
	}
	return o
}

// is reports whether d is want: what it serves, and what stands beside it.
func (d definition) is(want definition) bool {
	return d.serves(want) && d.Metadata != nil && want.Metadata != nil && *d.Metadata == *want.Metadata
}

// serves reports whether flagd makes of d what it makes of want.
func (d definition) serves(want definition) bool {
	if d.State != want.State || d.DefaultVariant != want.DefaultVariant || !equal(d.Targeting, want.Targeting) {
		return false
	}
	for variant, version := range want.Variants {
		if d.Variants[variant] != version {
			return false
		}
	}
	return true
}

// empty reports whether a rule decides nothing.
func empty(rule json.RawMessage) bool { return equal(rule, nil) }

// equal compares two rules as JSON; none, {} and null are the same.
func equal(a, b json.RawMessage) bool { return bytes.Equal(canonical(a), canonical(b)) }

func canonical(raw json.RawMessage) []byte {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return raw
	}
	if m, ok := v.(map[string]any); v == nil || ok && len(m) == 0 {
		return nil
	}
	out, err := json.Marshal(v)
	if err != nil {
		return raw
	}
	return out
}
