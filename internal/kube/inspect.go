package kube

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

var _ traffic.Inspector = (*Plane)(nil)

var (
	reviews  = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}
	services = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

// right is one that a rollout takes.
type right struct {
	verb, group, resource, name string
	level                       rollout.RemarkLevel // of its absence
}

// Inspect asks the API server for the rights that the rollout takes, and whether the Services behind the two destinations are there. What
// the rule says is Read's to tell.
func (p *Plane) Inspect(ctx context.Context, route rollout.Route) []rollout.Remark {
	kind, err := p.kind(route.Object)
	if err != nil {
		return []rollout.Remark{{Level: rollout.RemarkError, Path: "traffic.object", Text: err.Error()}}
	}
	return append(p.inspectRights(ctx, kind, *route.Object), p.inspectPlaces(ctx, kind, route)...)
}

func (p *Plane) inspectRights(ctx context.Context, kind Kind, o rollout.Object) []rollout.Remark {
	lease := leaseName(kind, o.Name)
	var out []rollout.Remark
	for _, r := range []right{
		{"get", kind.Group, kind.Resource, o.Name, rollout.RemarkError},
		{"patch", kind.Group, kind.Resource, o.Name, rollout.RemarkError},
		{"get", leases.Group, leases.Resource, lease, rollout.RemarkError},
		{"update", leases.Group, leases.Resource, lease, rollout.RemarkError},
		{"patch", leases.Group, leases.Resource, lease, rollout.RemarkError},
		{"create", leases.Group, leases.Resource, "", rollout.RemarkError},
		{"list", kind.Group, kind.Resource, "", rollout.RemarkWarning}, // only the sweep takes it
	} {
		what := fmt.Sprintf("%s %s.%s", r.verb, r.resource, r.group)
		if r.name != "" {
			what += " " + r.name
		}
		may, err := p.may(ctx, r, o.Namespace)
		switch {
		case err != nil:
			return append(out, rollout.Remark{Level: rollout.RemarkError, Path: "traffic.target", Text: err.Error()})
		case !may:
			out = append(out, rollout.Remark{
				Level: r.level, Path: "traffic.target",
				Text: fmt.Sprintf("the worker may not %s in namespace %s, want the right as %s gives it", what, o.Namespace, rights),
			})
		}
	}
	if len(out) > 0 {
		return out
	}
	text := fmt.Sprintf("the worker may set %s %s/%s and keep its lease", kind.Name, o.Namespace, o.Name)
	return []rollout.Remark{{Level: rollout.RemarkOK, Path: "traffic.target", Text: text}}
}

// may asks the API server whether this client has a right in a namespace.
func (p *Plane) may(ctx context.Context, r right, namespace string) (bool, error) {
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"namespace": namespace, "verb": r.verb, "group": r.group, "resource": r.resource, "name": r.name,
		}},
	}}
	answer, err := p.client.objects.Resource(reviews).Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, Fault(err, "create", reviews.Resource+"."+reviews.Group, namespace, "")
	}
	allowed, _, err := unstructured.NestedBool(answer.Object, "status", "allowed")
	return allowed, err
}

// inspectPlaces looks for the Services behind the destinations, as far as their names tell which these are and the client may see them, and
// asks the data plane what it thinks of the object.
func (p *Plane) inspectPlaces(ctx context.Context, kind Kind, route rollout.Route) []rollout.Remark {
	f, err := p.load(ctx, kind, route.Agent, route.Object)
	if err != nil {
		return nil // as Read tells
	}
	var out []rollout.Remark
	warn := func(format string, args ...any) {
		out = append(out, rollout.Remark{Level: rollout.RemarkWarning, Path: "traffic.object", Text: fmt.Sprintf(format, args...)})
	}
	for _, to := range f.rule.places {
		name, namespace, ok := serviceOf(to.at.Host, route.Object.Namespace)
		if !ok {
			continue
		}
		if _, err := p.client.Objects(services, namespace).Get(ctx, name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			warn("%s, %s %q goes to %s, and there is no Service %s/%s", title(f.object), p.dialect.RuleWord, f.rule.name, to.at, namespace, name)
		}
	}
	if p.dialect.Settled != nil {
		if err := p.dialect.Settled(f.object.Object); err != nil {
			warn("%s is not in force: %v", title(f.object), err)
		}
	}
	return out
}

// serviceOf is the Service that a host names from within a namespace, if it is the name of one: short, or with its namespace as far as svc.
func serviceOf(host, namespace string) (name, of string, ok bool) {
	parts := strings.Split(host, ".")
	switch {
	case len(parts) == 1:
		return host, namespace, true
	case len(parts) >= 3 && parts[2] == "svc":
		return parts[0], parts[1], true
	}
	return "", "", false
}
