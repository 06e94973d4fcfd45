package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	// tries bounds how often a write that others got ahead of is decided anew.
	tries = 40
	// settling bounds how long Apply waits for the data plane to take what was written.
	settling = 5 * time.Second
	// glance is how often it looks meanwhile.
	glance = 50 * time.Millisecond
)

// Plane is all of a traffic driver but its capabilities. It is safe for concurrent use.
type Plane struct {
	client  *Client
	dialect Dialect
	version []atomic.Int32 // by kind: which of its versions the server has
}

// NewPlane is a data plane of the client's cluster whose objects are written in the dialect.
func NewPlane(client *Client, dialect Dialect) *Plane {
	return &Plane{client: client, dialect: dialect, version: make([]atomic.Int32, len(dialect.Kinds))}
}

// Apply makes route the whole state of its agent: the lease first where the canary gets more, the weights first where it gets
// nothing. Nothing is written that stands there already. Errors: *traffic.OwnershipLost, *traffic.Rejected, *traffic.Busy, or
// a passing fault.
func (p *Plane) Apply(ctx context.Context, route rollout.Route) error {
	if err := p.dialect.check(route); err != nil {
		return err
	}
	kind, err := p.kind(route.Object)
	if err == nil && !route.Rollback {
		err = p.within(route.Object)
	}
	if err != nil {
		return err
	}
	leased := route.Weight > 0
	renewed := false
	if leased {
		if renewed, err = p.renew(ctx, kind, route); err != nil {
			return err
		}
	}
	var refused error
	version := ""
	for try := range tries {
		f, err := p.load(ctx, kind, route.Agent, route.Object)
		if err != nil {
			return final(err)
		}
		if refused != nil && f.object.GetResourceVersion() == version {
			return rejected("%s: the API server refuses it: %v", title(f.object), refused) // nobody was ahead of us
		}
		refused, version = nil, f.object.GetResourceVersion()
		want, err := f.plan(route)
		if err != nil {
			return err
		}
		there := f.is(p.dialect, want, route.Agent)
		if there && (renewed || !leased) {
			return p.after(ctx, f, route)
		}
		if leased && !renewed {
			if err := p.lease(ctx, kind, route, want); err != nil {
				return err
			}
			renewed = true
			if there {
				continue // the guard may have been faster: read again
			}
		}
		if err := p.write(ctx, f, want, route.Agent); moved(err) {
			refused = err
			if apierrors.IsConflict(err) {
				version = ""
			}
			if err := pause(ctx, try); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s %s/%s: others changed it %d times in a row", kind.Name, route.Object.Namespace, route.Object.Name, tries)
}

// pause lets others go first, a little longer at every try.
func pause(ctx context.Context, try int) error {
	most := time.Duration(min(try+1, 10)) * 5 * time.Millisecond
	return sleep(ctx, rand.N(most)) //nolint:gosec // to spread, not to hide
}

// final makes trouble with an object that Apply can't set a refusal.
func final(err error) error {
	var broken *broken
	if errors.As(err, &broken) {
		return rejected("%v", err)
	}
	return err
}

// after is what is left once the object says what route wants.
func (p *Plane) after(ctx context.Context, f found, route rollout.Route) error {
	if route.Weight == 0 {
		// A rollback is done by now: a lease without traffic does nothing, and its roles are still right.
		if err := p.release(ctx, f, route); err != nil && !route.Rollback {
			return err
		}
	}
	if p.dialect.Settled == nil || route.Rollback {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	object := f.object
	for {
		unsettled := p.dialect.Settled(object.Object)
		if unsettled == nil {
			return nil
		}
		if err := sleep(waiting, glance); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s is written, but the data plane has not taken it: %w", title(object), unsettled)
		}
		if next, err := p.get(waiting, f.kind, f.object.GetNamespace(), f.object.GetName()); err == nil {
			object = next
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kind is the kind of an object. Errors: *traffic.Rejected.
func (p *Plane) kind(o *rollout.Object) (Kind, error) {
	if o == nil {
		return Kind{}, rejected("the route names no object, want traffic.object in the rollout file")
	}
	if o.Namespace == "" || o.Name == "" || o.Rule == "" {
		return Kind{}, rejected("object %s/%s, rule %q: want all three", o.Namespace, o.Name, o.Rule)
	}
	var names []string
	for _, k := range p.dialect.Kinds {
		if o.Kind == k.Name || o.Kind == "" {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, rejected("objects of kind %q have no weights here, want %s", o.Kind, strings.Join(names, " or "))
}

// within refuses an object outside the target's namespaces: neither the guard nor the sweep, which have the same ones, would see its canary.
func (p *Plane) within(o *rollout.Object) error {
	if all := p.client.namespaces; !slices.Contains(all, metav1.NamespaceAll) && !slices.Contains(all, o.Namespace) {
		return rejected("namespace %q is none of the target's, want %s in traffic.object, or namespaces of the worker's and the guard's settings that have it",
			o.Namespace, strings.Join(all, " or "))
	}
	return nil
}

// broken is an object whose rule can't be read or written.
type broken struct{ err error }

func (e *broken) Error() string { return e.err.Error() }
func (e *broken) Unwrap() error { return e.err }

// load reads an object, and its lease if there is no record on it. Errors: *traffic.Rejected for an object that does not exist
// or is another agent's, *broken for one whose rule is not there, or a passing fault.
func (p *Plane) load(ctx context.Context, kind Kind, agent string, o *rollout.Object) (found, error) {
	object, err := p.get(ctx, kind, o.Namespace, o.Name)
	if apierrors.IsNotFound(err) {
		return found{}, rejected("%s %s/%s does not exist", kind.Name, o.Namespace, o.Name)
	}
	if err != nil {
		return found{}, err
	}
	return p.understand(ctx, kind, agent, o.Rule, object)
}

// understand is load for an object that was read.
func (p *Plane) understand(ctx context.Context, kind Kind, agent, name string, object *unstructured.Unstructured) (found, error) {
	f := found{object: object, kind: kind}
	if has := object.GetLabels()[AgentLabel]; has != "" && has != agent {
		return f, rejected("%s is the agent %s's by its label %s, not %s's", title(object), has, AgentLabel, agent)
	}
	var err error
	if f.set, f.marked, err = recordOf(object.GetAnnotations()); err != nil {
		return f, &broken{fmt.Errorf("%s: %w", title(object), err)}
	}
	if f.known = f.marked; !f.known {
		if f.set, f.known, err = p.remembered(ctx, kind, agent, object); err != nil {
			return f, err
		}
	}
	if f.rule, err = p.dialect.find(object, name); err != nil {
		return f, &broken{err}
	}
	if f.known && f.set.rule != name {
		if _, err := p.dialect.find(object, f.set.rule); err == nil {
			return f, &broken{fmt.Errorf("%s: its %s %q is in rollouts already, not %q", title(object), p.dialect.RuleWord, f.set.rule, name)}
		}
	}
	return f, nil
}

// get reads an object in the best version that the server has.
func (p *Plane) get(ctx context.Context, kind Kind, namespace, name string) (*unstructured.Unstructured, error) {
	var object *unstructured.Unstructured
	err := p.served(kind, func(version int) (err error) {
		object, err = p.client.Objects(kind.resource(version), namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, Fault(err, "get", kind.Resource+"."+kind.Group, namespace, name)
	}
	return object, nil
}

// served calls f with the version of kind that served before, and on with the others if the server does not have that.
func (p *Plane) served(kind Kind, f func(version int) error) error {
	at := 0
	for i, k := range p.dialect.Kinds {
		if k.Name == kind.Name {
			at = i
		}
	}
	first := int(p.version[at].Load())
	err := f(first)
	for i := 0; unserved(err) && i < len(kind.Versions); i++ {
		if i == first {
			continue
		}
		if err = f(i); !unserved(err) {
			p.version[at].Store(int32(i))
		}
	}
	return err
}

// write patches an object. Errors that moved reports are to be decided anew; others are faults.
func (p *Plane) write(ctx context.Context, f found, want record, agent string) error {
	data, err := f.patch(p.dialect, want, agent)
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	namespace, name := f.object.GetNamespace(), f.object.GetName()
	err = p.served(f.kind, func(version int) error {
		_, err := p.client.Objects(f.kind.resource(version), namespace).Patch(ctx, name, types.JSONPatchType, data,
			metav1.PatchOptions{FieldManager: Manager, FieldValidation: metav1.FieldValidationStrict})
		return err
	})
	switch {
	case err == nil || moved(err):
		return err
	case apierrors.IsNotFound(err):
		return rejected("%s does not exist any more", title(f.object))
	case apierrors.IsBadRequest(err):
		return rejected("%s: the API server refuses it: %v", title(f.object), err)
	}
	return Fault(err, "patch", f.kind.Resource+"."+f.kind.Group, namespace, name)
}

// Read is what the object says. Errors: *traffic.Rejected for an object that does not exist, is another agent's, or has never
// been as it must be; or a passing fault, which one is also that was set and then broken by somebody.
func (p *Plane) Read(ctx context.Context, route rollout.Route) (traffic.Observed, error) {
	if !rollout.ValidName(route.Agent) {
		return traffic.Observed{}, rejected("agent %q: want %s", route.Agent, rollout.NamePattern)
	}
	kind, err := p.kind(route.Object)
	if err == nil && !route.Rollback {
		err = p.within(route.Object)
	}
	if err != nil {
		return traffic.Observed{}, err
	}
	f, err := p.load(ctx, kind, route.Agent, route.Object)
	if err == nil {
		file := rollout.Route{Agent: route.Agent, Stable: f.set.stable}
		if _, _, unfit := f.roles(file, *route.Object); unfit != nil {
			err = &broken{unfit}
		}
	}
	if err == nil {
		if _, any := f.rule.share(f.rule.places[0].at); !any {
			err = &broken{fmt.Errorf("%s, %s %q: no destination has any weight", title(f.object), p.dialect.RuleWord, f.rule.name)}
			if by := p.dialect.changedBy(f.object); f.known && by != "" {
				err = &broken{fmt.Errorf("%w, by %s", err, by)}
			}
		}
	}
	var trouble *broken
	if errors.As(err, &trouble) {
		if f.known {
			return traffic.Observed{}, errors.New(trouble.Error()) // it was right once: the rollout goes on asking for it
		}
		return traffic.Observed{}, rejected("%v", trouble)
	}
	if err != nil {
		return traffic.Observed{}, err
	}
	return p.observed(f, route.Agent, *route.Object), nil
}

// observed is f for the port. Without a record the roles are those of file.
func (p *Plane) observed(f found, agent string, file rollout.Object) traffic.Observed {
	at := rollout.Object{
		Namespace: f.object.GetNamespace(), Kind: f.kind.Name, Name: f.object.GetName(), Rule: f.rule.name,
		Stable: file.Stable, Canary: file.Canary,
	}
	out := traffic.Observed{Agent: agent, Object: &at}
	if f.known {
		at.Stable, at.Canary = f.set.stableAt, f.set.canaryAt
		out.Stable, out.Canary, out.Owner, out.Revision = f.set.stable, f.set.canary, f.set.owner, f.set.revision
	}
	out.Weight, _ = f.rule.share(at.Canary)
	out.Effective = out.Weight
	if !f.known {
		return out
	}
	if f.set.expired && out.Weight == 0 {
		out.Weight, out.LeaseExpired = f.set.weight, f.set.weight > 0
		return out
	}
	if out.Weight != f.set.weight {
		out.ChangedBy = p.dialect.changedBy(f.object)
	}
	return out
}

// List is Read for every object that has Aviary's record, by namespace and name. One that is broken is left out: nothing could
// be put back there. Errors: a passing fault.
func (p *Plane) List(ctx context.Context) ([]traffic.Observed, error) {
	out := []traffic.Observed{}
	for _, kind := range p.dialect.Kinds {
		for _, namespace := range p.client.namespaces {
			var list *unstructured.UnstructuredList
			err := p.served(kind, func(version int) (err error) {
				list, err = p.client.Objects(kind.resource(version), namespace).List(ctx, metav1.ListOptions{LabelSelector: AgentLabel})
				return err
			})
			if unserved(err) && len(p.dialect.Kinds) > 1 {
				continue // a cluster need not have every kind
			}
			if err != nil {
				return nil, Fault(err, "list", kind.Resource+"."+kind.Group, namespace, "")
			}
			for i := range list.Items {
				if o, ok := p.listed(ctx, kind, &list.Items[i]); ok {
					out = append(out, o)
				}
			}
		}
	}
	return out, nil
}

func (p *Plane) listed(ctx context.Context, kind Kind, object *unstructured.Unstructured) (traffic.Observed, bool) {
	agent := object.GetLabels()[AgentLabel]
	set, marked, err := recordOf(object.GetAnnotations())
	if err != nil || !marked {
		return traffic.Observed{}, false
	}
	f, err := p.understand(ctx, kind, agent, set.rule, object)
	if err != nil || !f.rule.between(set.stableAt, set.canaryAt) {
		return traffic.Observed{}, false
	}
	return p.observed(f, agent, rollout.Object{}), true
}
