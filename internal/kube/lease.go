package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Leases of objects, in their namespaces: who holds the canary's traffic and when that was renewed. After a rollout the lease
// stays behind without a holder; it remembers which version runs where, should somebody remove the annotations from the
// object.
var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

const leasesResource = "leases.coordination.k8s.io"

// seconds of a lease, rounded up.
func seconds(d rollout.Duration) int64 { return int64((d.Std() + time.Second - 1) / time.Second) }

// now is the time as a lease has it.
func now() string { return time.Now().UTC().Format(metav1.RFC3339Micro) }

// renew renews the lease that route's owner holds at its revision with one call, and reports whether there is such a one.
func (p *Plane) renew(ctx context.Context, kind Kind, route rollout.Route) (bool, error) {
	if route.Lease == 0 {
		return false, nil
	}
	want := record{owner: route.Owner, revision: route.Revision}.annotations()
	data, err := json.Marshal([]operation{
		{"test", annotationPath(ownerKey), want[ownerKey]},
		{"test", annotationPath(revisionKey), want[revisionKey]},
		{"test", "/spec/holderIdentity", route.Owner},
		{"add", "/spec/renewTime", now()},
		{"add", "/spec/leaseDurationSeconds", seconds(route.Lease)},
	})
	if err != nil {
		return false, fmt.Errorf("encode a renewal: %w", err)
	}
	name, by := leaseName(kind, route.Object.Name), metav1.PatchOptions{FieldManager: Manager}
	_, err = p.client.Objects(leases, route.Object.Namespace).Patch(ctx, name, types.JSONPatchType, data, by)
	switch {
	case err == nil:
		return true, nil
	case apierrors.IsNotFound(err) || moved(err):
		return false, nil
	}
	return false, Fault(err, "patch", leasesResource, route.Object.Namespace, name)
}

// lease writes the lease that route's traffic is by, whoever held it before. Errors: *traffic.OwnershipLost to a later
// revision.
func (p *Plane) lease(ctx context.Context, kind Kind, route rollout.Route, want record) error {
	namespace, name := route.Object.Namespace, leaseName(kind, route.Object.Name)
	objects := p.client.Objects(leases, namespace)
	for try := range tries {
		current, err := objects.Get(ctx, name, metav1.GetOptions{})
		fresh := apierrors.IsNotFound(err)
		if err != nil && !fresh {
			return Fault(err, "get", leasesResource, namespace, name)
		}
		if fresh {
			current = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}}
			current.SetNamespace(namespace)
			current.SetName(name)
		} else if has, ok, _ := recordOf(current.GetAnnotations()); ok && has.owner == route.Owner && has.revision > route.Revision {
			return &traffic.OwnershipLost{Agent: route.Agent, Owner: has.owner, Revision: has.revision}
		}
		fill(current, kind, route, want)
		verb := "update"
		if fresh {
			verb = "create"
			_, err = objects.Create(ctx, current, metav1.CreateOptions{FieldManager: Manager})
		} else {
			_, err = objects.Update(ctx, current, metav1.UpdateOptions{FieldManager: Manager})
		}
		if err == nil {
			return nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !(verb == "update" && apierrors.IsNotFound(err)) {
			return Fault(err, verb, leasesResource, namespace, name)
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return fmt.Errorf("lease %s/%s: others changed it %d times in a row", namespace, name, tries)
}

// fill makes a lease say who holds an object's canary traffic.
func fill(lease *unstructured.Unstructured, kind Kind, route rollout.Route, want record) {
	remember(lease, kind, route.Agent, route.Object.Name, want)
	spec := map[string]any{"holderIdentity": route.Owner, "renewTime": now()}
	if route.Lease > 0 {
		spec["leaseDurationSeconds"] = seconds(route.Lease)
	}
	lease.Object["spec"] = spec
}

// remember makes a lease tell what it is of.
func remember(lease *unstructured.Unstructured, kind Kind, agent, object string, set record) {
	labels, annotations := lease.GetLabels(), lease.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[AgentLabel] = agent
	for key, value := range set.annotations() {
		annotations[key] = value
	}
	annotations[kindKey], annotations[objectKey] = kind.Name, object
	lease.SetLabels(labels)
	lease.SetAnnotations(annotations)
}

// release takes the holder from the lease of an object whose canary has no traffic any more, unless somebody newer holds it.
func (p *Plane) release(ctx context.Context, f found, route rollout.Route) error {
	namespace, name := f.object.GetNamespace(), leaseName(f.kind, f.object.GetName())
	objects := p.client.Objects(leases, namespace)
	for try := range tries {
		lease, err := objects.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return Fault(err, "get", leasesResource, namespace, name)
		}
		has, ok, _ := recordOf(lease.GetAnnotations())
		if ok && (has.owner != route.Owner || has.revision > route.Revision) {
			return nil
		}
		if holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity"); ok && holder == "" && has == f.set {
			return nil
		}
		remember(lease, f.kind, route.Agent, f.object.GetName(), f.set)
		lease.Object["spec"] = map[string]any{"renewTime": now()}
		if _, err = objects.Update(ctx, lease, metav1.UpdateOptions{FieldManager: Manager}); err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return Fault(err, "update", leasesResource, namespace, name)
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return fmt.Errorf("lease %s/%s: others changed it %d times in a row", namespace, name, tries)
}

// remembered is the record that the lease of an object has.
func (p *Plane) remembered(ctx context.Context, kind Kind, agent string, object *unstructured.Unstructured) (record, bool, error) {
	namespace, name := object.GetNamespace(), leaseName(kind, object.GetName())
	lease, err := p.client.Objects(leases, namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return record{}, false, nil
	case err != nil:
		return record{}, false, Fault(err, "get", leasesResource, namespace, name)
	case lease.GetLabels()[AgentLabel] != agent:
		return record{}, false, nil
	}
	set, ok, err := recordOf(lease.GetAnnotations())
	if err != nil {
		return record{}, false, &broken{fmt.Errorf("lease %s/%s: %w", namespace, name, err)}
	}
	return set, ok, nil
}

// readers bounds how many routes are read at once.
const readers = 8

// Leases are those of every object whose canary has traffic. One whose object can't be read now is told of all the same:
// better that the guard tries in vain. Errors: a passing fault.
func (p *Plane) Leases(ctx context.Context) ([]traffic.Lease, error) {
	var all []traffic.Lease
	var errs []error
	for _, namespace := range p.client.namespaces {
		list, err := p.client.Objects(leases, namespace).List(ctx, metav1.ListOptions{LabelSelector: AgentLabel})
		if err != nil { // one namespace that can't be read hides no other
			errs = append(errs, Fault(err, "list", leasesResource, namespace, ""))
			continue
		}
		for i := range list.Items {
			if l, _, ok := p.held(&list.Items[i]); ok {
				all = append(all, l)
			}
		}
	}
	exposed := make([]bool, len(all))
	var reading errgroup.Group
	reading.SetLimit(readers)
	for i, l := range all {
		reading.Go(func() error {
			exposed[i] = p.wanted(ctx, l)
			return nil
		})
	}
	_ = reading.Wait() // they return none
	out := []traffic.Lease{}
	for i, l := range all {
		if exposed[i] {
			out = append(out, l)
		}
	}
	return out, errors.Join(errs...)
}

// wanted reports whether a lease is of an object whose canary has traffic, or may have.
func (p *Plane) wanted(ctx context.Context, l traffic.Lease) bool {
	kind, err := p.kind(l.Object)
	if err != nil {
		return false
	}
	f, err := p.leased(ctx, kind, l)
	var gone *traffic.Rejected
	if err != nil {
		return !errors.As(err, &gone)
	}
	share, _ := f.rule.share(f.canaryAt(l))
	return share > 0
}

// leased is load for the guard: an object whose label somebody has changed is still the lease's while its annotations say so.
func (p *Plane) leased(ctx context.Context, kind Kind, l traffic.Lease) (found, error) {
	object, err := p.get(ctx, kind, l.Object.Namespace, l.Object.Name)
	if apierrors.IsNotFound(err) {
		return found{}, rejected("%s %s/%s does not exist", kind.Name, l.Object.Namespace, l.Object.Name)
	}
	if err != nil {
		return found{}, err
	}
	agent := l.Agent
	if set, ok, err := recordOf(object.GetAnnotations()); err == nil && ok && set.owner == l.Owner {
		agent = cmp.Or(object.GetLabels()[AgentLabel], agent)
	}
	return p.understand(ctx, kind, agent, l.Object.Rule, object)
}

// canaryAt is where the canary of an object runs that a lease is of.
func (f found) canaryAt(l traffic.Lease) rollout.Destination {
	if f.known {
		return f.set.canaryAt
	}
	return l.Object.Canary
}

// held is a lease for the port, and the record on it, if it is one of this plane's and somebody holds it for a time.
func (p *Plane) held(lease *unstructured.Unstructured) (traffic.Lease, record, bool) {
	annotations := lease.GetAnnotations()
	set, ok, err := recordOf(annotations)
	if err != nil || !ok {
		return traffic.Lease{}, set, false
	}
	holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity")
	ttl, _, _ := unstructured.NestedInt64(lease.Object, "spec", "leaseDurationSeconds")
	renewed, _, _ := unstructured.NestedString(lease.Object, "spec", "renewTime")
	object := rollout.Object{
		Namespace: lease.GetNamespace(), Kind: annotations[kindKey], Name: annotations[objectKey], Rule: set.rule,
		Stable: set.stableAt, Canary: set.canaryAt,
	}
	if _, err := p.kind(&object); err != nil || holder == "" || ttl <= 0 || object.Kind == "" {
		return traffic.Lease{}, set, false
	}
	return traffic.Lease{
		Agent: lease.GetLabels()[AgentLabel], Object: &object, Owner: set.owner, Revision: set.revision,
		TTL: time.Duration(ttl) * time.Second, Renewal: fmt.Sprintf("%s %s %d", renewed, holder, set.revision),
	}, set, true
}

// Expire gives all of an object's requests to stable if its lease is still as l says, and leaves a mark of that. Errors: a
// passing fault.
func (p *Plane) Expire(ctx context.Context, l traffic.Lease) error {
	kind, err := p.kind(l.Object)
	if err != nil {
		return err
	}
	namespace, name := l.Object.Namespace, leaseName(kind, l.Object.Name)
	for try := range tries {
		lease, err := p.client.Objects(leases, namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return Fault(err, "get", leasesResource, namespace, name)
		}
		current, remembered, held := p.held(lease)
		if !held || current.Renewal != l.Renewal {
			return nil
		}
		f, err := p.leased(ctx, kind, l)
		if err != nil {
			return err
		}
		want := f.set
		if !f.known {
			want = remembered
		}
		if !f.rule.between(want.stableAt, want.canaryAt) {
			return fmt.Errorf("%s, %s %q: it goes to %s, want %s and %s", title(f.object), p.dialect.RuleWord, f.rule.name, f.rule.words(),
				want.stableAt, want.canaryAt)
		}
		if share, _ := f.rule.share(want.canaryAt); share == 0 {
			return nil
		}
		want.expired = true
		if err := p.write(ctx, f, want, cmp.Or(f.object.GetLabels()[AgentLabel], l.Agent)); !moved(err) {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s %s/%s: others changed it %d times in a row", kind.Name, namespace, l.Object.Name, tries)
}
