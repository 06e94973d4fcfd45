// Package flagd drives the traffic of agents whose callers ask a feature flag: it writes a fractional flag that flagd, or any OpenFeature
// SDK that evaluates as flagd does, turns into a version, in process, sticky by targeting key.
package flagd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Store holds a document of flags, and beside it when leases were renewed: flagd tells its clients of every change of the flags, and a
// renewal is none. Implementations are safe for concurrent use.
type Store interface {
	// Name says where it is, for errors.
	Name() string
	// Read is the document.
	Read(ctx context.Context) ([]byte, error)
	// Update replaces the document by what change makes of it, unless that is the same. Nobody else's change is lost: it is a
	// passing fault, or change is called again, when the document was changed in between.
	Update(ctx context.Context, change func(document []byte) ([]byte, error)) error
	// Renewals are the last stamps by flag. Renew sets one flag's.
	Renewals(ctx context.Context) (map[string]string, error)
	Renew(ctx context.Context, flag, stamp string) error
}

// Driver sets flags in one store. It is safe for concurrent use.
type Driver struct{ store Store }

var _ traffic.Leased = (*Driver)(nil)

// New is a Driver of a store's flags.
func New(store Store) *Driver { return &Driver{store} }

// Capabilities of a fractional flag: every basis point, sticky by targeting key, with leases that the guard keeps.
func (d *Driver) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: 1, Sticky: "user", Lease: true}
}

// flagOf is the key of a route's flag: the object's name, else the agent's.
func flagOf(r rollout.Route) string {
	if r.Object != nil {
		return r.Object.Name
	}
	return r.Agent
}

func check(r rollout.Route) error {
	reject := func(format string, args ...any) error {
		return &traffic.Rejected{Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !rollout.ValidName(r.Stable):
		return reject("stable %q: want %s", r.Stable, rollout.NamePattern)
	case r.Canary != "" && !rollout.ValidName(r.Canary):
		return reject("canary %q: want %s, or none", r.Canary, rollout.NamePattern)
	case r.Weight < 0 || r.Weight > rollout.FullWeight:
		return reject("weight %d: want basis points from 0 to %d", int(r.Weight), int(rollout.FullWeight))
	case r.Weight > 0 && r.Canary == "":
		return reject("weight %d without a canary", int(r.Weight))
	case r.Mirror != 0:
		return reject("mirror %d: a flag copies nothing", int(r.Mirror))
	case r.Lease < 0:
		return reject("lease %s: want 0 or more", r.Lease)
	}
	return nil
}

// Apply writes the flag and reads it back. The lease is renewed before traffic comes.
func (d *Driver) Apply(ctx context.Context, r rollout.Route) error {
	if err := check(r); err != nil {
		return err
	}
	want, err := define(r)
	if err != nil {
		return &traffic.Rejected{Reason: err.Error()}
	}
	if r.Weight > 0 && r.Lease > 0 {
		// Whoever may not set the route may not renew its lease either.
		if _, err := d.find(ctx, r, true); err != nil {
			return err
		}
		if err := d.store.Renew(ctx, flagOf(r), r.Owner+"@"+uuid.NewString()); err != nil {
			return d.fault(ctx, "renew the lease", err)
		}
	}
	err = d.store.Update(ctx, func(document []byte) ([]byte, error) {
		now, err := lookup(document, r, true)
		if err != nil || now.is(want) {
			return document, err
		}
		return replace(document, flagOf(r), want)
	})
	if err != nil {
		return d.fault(ctx, "set the flag", err)
	}
	got, err := d.find(ctx, r, true)
	if err == nil && !got.is(want) {
		err = fmt.Errorf("set flag %q in %s: it reads back otherwise", flagOf(r), d.store.Name())
	}
	return err
}

// Read is what the flag does. Errors: *traffic.Rejected where there is no such flag, or one that is not the agent's.
func (d *Driver) Read(ctx context.Context, r rollout.Route) (traffic.Observed, error) {
	got, err := d.find(ctx, r, false)
	if err != nil {
		return traffic.Observed{}, err
	}
	return got.observe(r.Agent, r.Object), nil
}

// List is what the flags do that ever had a route.
func (d *Driver) List(ctx context.Context) ([]traffic.Observed, error) {
	document, err := d.store.Read(ctx)
	if err == nil {
		err = valid(document)
	}
	if err != nil {
		return nil, d.fault(ctx, "list the flags", err)
	}
	out := []traffic.Observed{}
	each(document, func(flag string, f definition) {
		out = append(out, f.observe(f.Metadata.Agent, objectOf(f.Metadata.Agent, flag)))
	})
	return out, nil
}

// each calls fn for every flag of a document that has had a route.
func each(document []byte, fn func(flag string, f definition)) {
	gjson.GetBytes(document, "flags").ForEach(func(key, value gjson.Result) bool {
		if f, err := parse(key.String(), []byte(value.Raw)); err == nil && f.Metadata != nil {
			fn(key.String(), f)
		}
		return true
	})
}

// objectOf is the object that names a flag; nil where the agent's name does.
func objectOf(agent, flag string) *rollout.Object {
	if agent == flag {
		return nil
	}
	return &rollout.Object{Name: flag}
}

// Leases implements traffic.Leased. A canary whose stamp is gone has a lease all the same: nobody renews it.
func (d *Driver) Leases(ctx context.Context) ([]traffic.Lease, error) {
	document, err := d.store.Read(ctx)
	if err == nil {
		err = valid(document)
	}
	if err != nil {
		return nil, d.fault(ctx, "read the leases", err)
	}
	stamps, err := d.store.Renewals(ctx)
	if err != nil {
		return nil, d.fault(ctx, "read the leases", err)
	}
	out := []traffic.Lease{}
	each(document, func(flag string, f definition) {
		m := f.Metadata
		if m.served() == 0 || m.LeaseMillis == 0 {
			return
		}
		out = append(out, traffic.Lease{
			Agent: m.Agent, Object: objectOf(m.Agent, flag), Owner: m.Owner, Revision: m.Revision,
			TTL: time.Duration(m.LeaseMillis) * time.Millisecond, Renewal: stamps[flag],
		})
	})
	return out, nil
}

// Expire implements traffic.Leased. A renewal that comes in the middle brings the canary back with the next one.
func (d *Driver) Expire(ctx context.Context, l traffic.Lease) error {
	route := rollout.Route{Agent: l.Agent, Object: l.Object}
	flag := flagOf(route)
	err := d.store.Update(ctx, func(document []byte) ([]byte, error) {
		stamps, err := d.store.Renewals(ctx)
		if err != nil || stamps[flag] != l.Renewal {
			return document, err
		}
		f, err := lookup(document, route, false)
		if err != nil {
			return nil, err
		}
		if f.Metadata == nil || f.Metadata.Owner != l.Owner || f.Metadata.served() == 0 {
			return document, nil
		}
		m := *f.Metadata
		m.Expired = true
		back, err := build(f.stable(), m)
		if err != nil {
			return nil, err
		}
		return replace(document, flag, back)
	})
	if err != nil {
		return d.fault(ctx, "take flag "+strconv.Quote(flag)+" back", err)
	}
	return nil
}

// find is a route's flag; fenced: as far as the route may set it.
func (d *Driver) find(ctx context.Context, r rollout.Route, fenced bool) (definition, error) {
	document, err := d.store.Read(ctx)
	if err != nil {
		return definition{}, d.fault(ctx, "read the flag", err)
	}
	f, err := lookup(document, r, fenced)
	if err != nil {
		return f, d.fault(ctx, "read the flag", err)
	}
	return f, nil
}

// fault is an error of the port: one of its own as it is, anything else a passing one that says where.
func (d *Driver) fault(ctx context.Context, doing string, err error) error {
	var lost *traffic.OwnershipLost
	var rejected *traffic.Rejected
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &lost):
		return lost
	case errors.As(err, &rejected):
		return &traffic.Rejected{Reason: d.store.Name() + ": " + rejected.Reason}
	}
	return fmt.Errorf("%s in %s: %w", doing, d.store.Name(), err)
}

// lookup finds a route's flag in a document; fenced: as far as the route may set it. Errors: *traffic.Rejected, *traffic.OwnershipLost,
// or a document that can't be read.
func lookup(document []byte, r rollout.Route, fenced bool) (definition, error) {
	flag := flagOf(r)
	if !rollout.ValidName(r.Agent) {
		return definition{}, &traffic.Rejected{Reason: fmt.Sprintf("agent %q: want %s", r.Agent, rollout.NamePattern)}
	}
	if err := valid(document); err != nil {
		return definition{}, err
	}
	raw := gjson.GetBytes(document, at(flag))
	if !raw.Exists() {
		return definition{}, &traffic.Rejected{Reason: fmt.Sprintf(
			"there is no flag %q; add one that tells the stable version: {\"state\": \"ENABLED\", \"variants\": {\"stable\": \"v41\"}, \"defaultVariant\": \"stable\"}", flag)}
	}
	f, err := parse(flag, []byte(raw.Raw))
	if err != nil {
		return f, &traffic.Rejected{Reason: err.Error()}
	}
	if m := f.Metadata; m != nil && m.Agent != r.Agent {
		return f, &traffic.Rejected{Reason: fmt.Sprintf("flag %q is of agent %s, not of %s", flag, m.Agent, r.Agent)}
	}
	if fenced {
		return f, f.yields(flag, r)
	}
	return f, nil
}

// yields is why a route may not set the flag, or nil. A rollout that was replaced ends nothing any more, and only a promotion changes what
// is stable.
func (d definition) yields(flag string, r rollout.Route) error {
	m := d.Metadata
	switch stable := d.stable(); {
	case m != nil && m.Owner == r.Owner:
		if r.Revision < m.Revision {
			return &traffic.OwnershipLost{Agent: r.Agent, Owner: m.Owner, Revision: m.Revision}
		}
	case m != nil && (m.served() > 0 || r.Rollback || r.Promoted):
		return &traffic.OwnershipLost{Agent: r.Agent, Owner: m.Owner, Revision: m.Revision}
	case stable != r.Stable && !r.Rollback && !r.Promoted: // of a flag that somebody has stripped, either may be anything
		return &traffic.Rejected{Reason: fmt.Sprintf("flag %q: stable is %s, the rollout says %s", flag, stable, r.Stable)}
	}
	return nil
}

// valid wants a document of flags.
func valid(document []byte) error {
	switch {
	case !gjson.ValidBytes(document):
		return errors.New("it is not JSON")
	case !gjson.GetBytes(document, "flags").IsObject():
		return errors.New(`it has no flags, want {"flags": {…}}`)
	}
	return nil
}

// at is a flag's path in a document. Dots and the like in its key are no path.
func at(flag string) string {
	path := []byte("flags.")
	for i := range len(flag) {
		if c := flag[i]; c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			if c == '.' {
				path = append(path, '\\')
			}
			path = append(path, c)
			continue
		}
		path = append(path, '\\', flag[i])
	}
	return string(path)
}

// replace puts a flag into a document. Everything else stays byte for byte.
func replace(document []byte, flag string, d definition) ([]byte, error) {
	raw, err := json.MarshalIndent(d, "    ", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode flag %q: %w", flag, err)
	}
	out, err := sjson.SetRawBytes(document, at(flag), raw)
	if err == nil {
		err = valid(out)
	}
	if err != nil {
		return nil, fmt.Errorf("write flag %q: %w", flag, err)
	}
	return out, nil
}
