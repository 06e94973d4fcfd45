// Package router drives the traffic of Aviary's own gateways, any number of replicas of them, through their admin APIs.
package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/internal/replicas"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
)

// callTimeout bounds one call to one replica unless the client says otherwise. It is short: a replica that hangs keeps the
// answer waiting, though not the others' routes.
const callTimeout = 2 * time.Second

// maxBody bounds an answer of a replica, in bytes.
const maxBody = 8 << 20

type replica = replicas.Replica

// maxEpoch is the highest epoch that gateways take.
const maxEpoch = 1 << 32

// Driver sets and reads the routes of all replicas. It is safe for concurrent use.
type Driver struct {
	set *replicas.Set

	mu     sync.Mutex
	epochs map[string]uint64 // by agent: the highest that any replica has answered
}

var _ traffic.Driver = (*Driver)(nil)

// New is a driver of the gateways whose admin APIs are at the addresses, such as "http://10.0.0.7:9901". Client may be nil;
// without a timeout of its own it gets 2 s a call. Errors: no gateway, one twice, or an address that is no URL.
func New(gateways []string, token string, client *http.Client) (*Driver, error) {
	return Open(replicas.Settings{Addresses: gateways, Token: token, Client: client})
}

// Open is a driver of the gateways that s describes. Without a timeout a call gets 2 s. Errors are those of replicas.New.
func Open(s replicas.Settings) (*Driver, error) {
	s.Timeout, s.MaxBody = cmp.Or(s.Timeout, callTimeout), cmp.Or(s.MaxBody, maxBody)
	set, err := replicas.New(s)
	if err != nil {
		return nil, fmt.Errorf("router driver: %w", err)
	}
	return &Driver{set: set, epochs: map[string]uint64{}}, nil
}

// Capabilities of the built-in router: every basis point, sticky by conversation, with lease, override and mirror.
func (d *Driver) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: 1, Sticky: "conversation", Lease: true, Override: true, Mirror: true}
}

// Apply sends route to every replica at once and reads it back from each. A replica that can't be reached does not keep it from
// the others: it is named in the error, which is a passing one, so that the caller tries again. A route that every replica
// refuses is rejected; one that only some refuse is passing, since a replica may learn of a version later.
//
// Replicas whose pins are of an earlier epoch than the others', because they came later or missed a rollback, are told of it, so
// that a pin which one refuses is refused by all.
func (d *Driver) Apply(ctx context.Context, route rollout.Route) error {
	if err := check(route); err != nil {
		return err
	}
	all := d.set.All(ctx)
	want := wire(route)
	want.Epoch = d.epoch(route.Agent, 0)
	epochs := make([]uint64, len(all))
	errs := each(all, func(i int, r replica) error {
		seen, err := apply(ctx, r, route.Agent, want)
		epochs[i] = seen.Epoch
		return err
	})
	if want.Epoch = d.epoch(route.Agent, slices.Max(epochs)); want.Epoch > slices.Min(epochs) {
		for i, err := range each(all, func(i int, r replica) error {
			if errs[i] != nil || epochs[i] >= want.Epoch {
				return errs[i]
			}
			return join(ctx, r, route.Agent, want)
		}) {
			errs[i] = err
		}
	}
	return combine(all, route.Agent, "set the route", errs)
}

// epoch is the highest epoch of the agent's pins that is known, once seen is. One that is beyond all bounds is not believed: no
// other gateway would take it, nor the route with it.
func (d *Driver) epoch(agent string, seen uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if seen > d.epochs[agent] && seen <= maxEpoch {
		d.epochs[agent] = seen
	}
	return d.epochs[agent]
}

func check(route rollout.Route) error {
	reject := func(format string, args ...any) error {
		return &traffic.Rejected{Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !rollout.ValidName(route.Agent):
		return reject("agent %q: want %s", route.Agent, rollout.NamePattern)
	case !rollout.ValidName(route.Stable):
		return reject("stable %q: want %s", route.Stable, rollout.NamePattern)
	case route.Canary != "" && !rollout.ValidName(route.Canary):
		return reject("canary %q: want %s, or none", route.Canary, rollout.NamePattern)
	case route.Weight < 0 || route.Weight > rollout.FullWeight:
		return reject("weight %d: want basis points from 0 to %d", int(route.Weight), int(rollout.FullWeight))
	case route.Mirror < 0 || route.Mirror > rollout.FullWeight || route.Mirror > 0 && (route.Weight > 0 || route.Canary == ""):
		return reject("mirror %d: want basis points from 0 to %d, and above 0 only with a canary of weight 0", int(route.Mirror), int(rollout.FullWeight))
	case route.Lease < 0:
		return reject("lease %s: want 0 or more", route.Lease)
	}
	return nil
}

// wire is the route as the admin API takes it. A lease is rounded up: 0 would be for ever.
func wire(r rollout.Route) api.Route {
	return api.Route{
		Stable: r.Stable, Canary: r.Canary, Weight: int(r.Weight), Mirror: int(r.Mirror), Owner: r.Owner, Revision: r.Revision,
		LeaseMillis: int64((r.Lease.Std() + time.Millisecond - 1) / time.Millisecond), OnRollback: string(r.OnRollback),
		Rollback: r.Rollback, Promoted: r.Promoted,
	}
}

// apply sends want to a replica and asks it what it does now: not by the answer to the PUT, which a proxy may keep.
func apply(ctx context.Context, r replica, agent string, want api.Route) (api.Observed, error) {
	if _, err := r.Client.PutRoute(ctx, agent, want); err != nil {
		return api.Observed{}, err
	}
	got, err := r.Client.Route(ctx, agent)
	if err != nil {
		return api.Observed{}, fmt.Errorf("read the route back: %w", err)
	}
	if got.Owner != want.Owner && got.Owner != "" || got.Revision > want.Revision {
		return got, &api.Conflict{Owner: got.Owner, Revision: got.Revision, Message: "somebody else has set it since"}
	}
	if got.Stable != want.Stable || got.Canary != want.Canary || got.Weight != want.Weight || got.EffectiveWeight != want.Weight || got.Mirror != want.Mirror ||
		got.Owner != want.Owner || got.Revision != want.Revision {
		return got, fmt.Errorf("lags: it reads back %s → %q at weight %d (%d in force), mirror %d, revision %d", got.Stable, got.Canary, got.Weight, got.EffectiveWeight,
			got.Mirror, got.Revision)
	}
	return got, nil
}

// join tells a replica that has the route of a later epoch.
func join(ctx context.Context, r replica, agent string, want api.Route) error {
	got, err := apply(ctx, r, agent, want)
	if err == nil && got.Epoch < want.Epoch {
		return fmt.Errorf("lags: its pins are of epoch %d, those of others of %d", got.Epoch, want.Epoch)
	}
	return err
}

// each calls fn for every replica at once and returns the errors in the replicas' order.
func each(all []replica, fn func(i int, r replica) error) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		if errs[i] = r.Err; r.Err == nil {
			wg.Go(func() { errs[i] = fn(i, r) })
		}
	}
	wg.Wait()
	return errs
}

// combine is one error of all replicas': lost ownership first, then a passing fault of anyone, and a refusal when all of those
// who failed refuse and nobody agrees.
func combine(all []replica, agent, doing string, errs []error) error {
	var texts, refusals []string
	var pause time.Duration
	for i, err := range errs {
		if err == nil {
			continue
		}
		var conflict *api.Conflict
		if errors.As(err, &conflict) {
			return &traffic.OwnershipLost{Agent: agent, Owner: conflict.Owner, Revision: conflict.Revision}
		}
		text := fmt.Sprintf("%s: %v", all[i].Name, err)
		texts = append(texts, text)
		var answer *api.Error
		if errors.As(err, &answer) {
			pause = max(pause, min(answer.RetryAfter, httpx.MaxRetryAfter))
			if refused(answer) {
				refusals = append(refusals, text)
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	if len(refusals) == len(errs) {
		return &traffic.Rejected{Reason: fmt.Sprintf("%s of agent %s: %s", doing, agent, refusals[0])}
	}
	var err error = &behind{
		text: fmt.Sprintf("%s of agent %s: %d of %d gateways are behind: %s", doing, agent, len(texts), len(errs), strings.Join(texts, "; ")),
		errs: errs,
	}
	if pause > 0 {
		return &traffic.Busy{RetryAfter: pause, Err: err}
	}
	return err
}

// behind is a passing fault of some replicas.
type behind struct {
	text string
	errs []error // by replica; nil where all is well
}

func (e *behind) Error() string { return e.text }

// Unwrap is what went wrong at each replica.
func (e *behind) Unwrap() []error {
	return slices.DeleteFunc(slices.Clone(e.errs), func(err error) bool { return err == nil })
}

// refused reports whether a replica will say the same of the same request for ever.
func refused(e *api.Error) bool {
	switch e.Code {
	case api.CodeUnknownAgent, api.CodeUnknownVersion, api.CodeInvalid, api.CodeInUse, api.CodeTooLarge:
		return true
	}
	return false
}
