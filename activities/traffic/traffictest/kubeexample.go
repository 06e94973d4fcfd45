//go:build k8s

package traffictest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/rollout"
)

// worker is the service account of deploy/kubernetes.
const worker = "system:serviceaccount:aviary:aviary-worker"

// RunKubeExample carries a rollout file of examples/ out on a manifest of examples/kubernetes/, with no more rights than deploy/kubernetes
// gives: promoted, the next one rolled back, and listed as the sweep does. The parents of the object, if it has any, are left out.
func RunKubeExample(t *testing.T, admin *rest.Config, d KubeDialect, file, manifest string) {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	spec, err := config.LoadRollout(filepath.Join(root, "examples", file), config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	at := spec.Traffic.Object
	p := kubePlane{dialect: d, namespace: at.Namespace, proxy: newMeddler(t, admin)}
	if p.admin, err = dynamic.NewForConfig(admin); err != nil {
		t.Fatal(err)
	}
	put(t, p.admin, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": at.Namespace},
	}})
	object := documents(t, filepath.Join(root, "examples", "kubernetes", manifest))[0]
	unstructured.RemoveNestedField(object.Object, "spec", "parentRefs")
	// What an earlier run left behind.
	if err := p.objects().Delete(t.Context(), at.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	leases := schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	only := metav1.ListOptions{LabelSelector: kube.AgentLabel + "=" + spec.Agent}
	if err := p.admin.Resource(leases).Namespace(at.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, only); err != nil {
		t.Fatal(err)
	}
	put(t, p.admin, d.Resource, at.Namespace, object)
	for _, o := range documents(t, filepath.Join(root, "deploy", "kubernetes", "rbac.yaml")) {
		resource := map[string]string{"Role": "roles", "RoleBinding": "rolebindings"}[o.GetKind()]
		put(t, p.admin, schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: resource}, o.GetNamespace(), o)
	}
	user := worker
	p.proxy.user.Store(&user)
	if p.leased, err = d.Open(kube.Settings{Kubeconfig: kubeconfig(t, p.proxy.url), Namespaces: []string{at.Namespace}}); err != nil {
		t.Fatal(err)
	}
	p.Driver = p.leased
	p.Plane.Agent, p.Stable, p.Canary, p.Object = spec.Agent, spec.Stable, spec.Canary, at
	eventually(t, "the worker's rights", func() bool {
		_, err := p.Driver.List(t.Context())
		return err == nil
	})
	p.carryOut(t, spec)
	other := p.route("o", 1, 100)
	o := *at
	o.Name, other.Object = "somebody-elses", &o
	wantFault(t, p.Driver.Apply(t.Context(), other), "not permitted")
}

// carryOut promotes the canary of a rollout, and then begins the next one and takes it back.
func (p kubePlane) carryOut(t *testing.T, spec rollout.Spec) {
	t.Helper()
	get := func() *unstructured.Unstructured {
		o, err := p.objects().Get(t.Context(), p.Object.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	before := p.testers(get())
	if before == "" {
		t.Fatal("the manifest has no rule for testers")
	}
	owner := "rollout of " + spec.Canary
	revision := int64(0)
	next := func(weight rollout.Weight) rollout.Route {
		revision++
		r := p.route(owner, revision, weight)
		r.Lease = spec.Traffic.Lease
		return r
	}
	for _, stage := range spec.Stages {
		r := next(stage.Weight)
		mustApply(t, p.Plane, r)
		mustApply(t, p.Plane, r) // renewed
		wantRead(t, p.Plane, traffic.Observed{
			Agent: spec.Agent, Stable: spec.Stable, Canary: spec.Canary, Weight: stage.Weight, Effective: stage.Weight, Owner: owner, Revision: revision,
		})
	}
	done := next(0)
	done.Stable, done.Canary, done.Promoted = spec.Canary, "", true
	mustApply(t, p.Plane, done)
	owner, revision = "the next rollout", 0
	p.Stable, p.Canary = spec.Canary, "v43"
	mustApply(t, p.Plane, next(spec.Stages[0].Weight))
	all, err := p.Driver.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Weight != spec.Stages[0].Weight || all[0].Stable != spec.Canary || all[0].Object.Stable != p.Object.Canary {
		t.Errorf("list %+v, %v, want v43 at %s, and stable where the canary was", all, err, spec.Stages[0].Weight)
	}
	back := next(0)
	back.Rollback = true
	mustApply(t, p.Plane, back)
	if got, want := p.weights(get()), [2]int64{0, p.dialect.Total}; got != want {
		t.Errorf("weights %v at the end, want %v", got, want)
	}
	if after := p.testers(get()); after != before {
		t.Errorf("the testers' rule is %s, want %s", after, before)
	}
}

// documents of a YAML file.
func documents(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096); ; {
		var o unstructured.Unstructured
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, &o)
	}
}

// put creates an object, unless it is there.
func put(t *testing.T, admin dynamic.Interface, resource schema.GroupVersionResource, namespace string, o *unstructured.Unstructured) {
	t.Helper()
	resource.Version = o.GroupVersionKind().Version
	_, err := admin.Resource(resource).Namespace(namespace).Create(context.Background(), o, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("create %s %s/%s: %v", o.GetKind(), namespace, o.GetName(), err)
	}
}
