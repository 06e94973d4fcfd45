//go:build k8s

package flagd_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic/flagd"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/rollout"
)

// configMap is the store in a new ConfigMap that holds text.
func configMap(t *testing.T, text string) (*flagd.ConfigMap, *kube.ConfigMap) {
	t.Helper()
	client, err := kube.Open(kube.Settings{Kubeconfig: os.Getenv("AVIARY_KUBECONFIG")})
	if err != nil {
		t.Fatal(err)
	}
	objects := client.Objects(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, "default")
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"generateName": "flags-"},
		"data": map[string]any{"flags.json": text, "other": "stays"},
	}}
	made, err := objects.Create(t.Context(), o, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	at := client.ConfigMap("default", made.GetName(), "flags.json")
	return flagd.NewConfigMap(at), at
}

func TestConformanceInAConfigMap(t *testing.T) {
	t.Parallel()
	traffictest.Run(t, func(t *testing.T) traffictest.Plane {
		store, _ := configMap(t, fresh)
		d := flagd.New(store)
		guarded(t, d)
		return traffictest.Plane{Driver: d, Agent: "support-agent", Stable: "v41", Canary: "v42"}
	})
}

// TestRenewalsAreNoChange: what flagd reads stays as it is when a lease is renewed.
func TestRenewalsAreNoChange(t *testing.T) {
	t.Parallel()
	store, at := configMap(t, fresh)
	d := flagd.New(store)
	if err := d.Apply(t.Context(), route(500, 1)); err != nil {
		t.Fatal(err)
	}
	before, err := at.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, _ := d.Leases(t.Context())
	if err := d.Apply(t.Context(), route(500, 1)); err != nil {
		t.Fatal(err)
	}
	after, err := at.Get(t.Context())
	second, _ := d.Leases(t.Context())
	if err != nil || after.Text != before.Text || len(first) != 1 || len(second) != 1 || first[0].Renewal == second[0].Renewal {
		t.Errorf("%v: flags the same %t, leases %+v then %+v", err, after.Text == before.Text, first, second)
	}
	if err := at.Set(t.Context(), before, "{}"); err == nil {
		t.Error("a write over an older version was taken")
	}
}

// TestConfigMapWritersLoseNothing: four drivers, each for a flag of its own in one ConfigMap.
func TestConfigMapWritersLoseNothing(t *testing.T) {
	t.Parallel()
	var flags []string
	for i := range 4 {
		flags = append(flags, fmt.Sprintf(`"agent-%d": {"state": "ENABLED", "variants": {"stable": "v41"}, "defaultVariant": "stable"}`, i))
	}
	store, _ := configMap(t, `{"flags": {`+strings.Join(flags, ",")+`}}`)
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for n := range 10 {
				r := route(rollout.Weight(100*i+n+1), int64(n)+1)
				r.Agent = fmt.Sprintf("agent-%d", i)
				for tries := 0; ; tries++ {
					err := flagd.New(store).Apply(t.Context(), r)
					if err == nil {
						break
					}
					if tries > 20 || !strings.Contains(err.Error(), "at the same moment") {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	all, err := flagd.New(store).List(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%d flags, %v; want 4", len(all), err)
	}
	for i, o := range all {
		if o.Revision != 10 || o.Weight != rollout.Weight(100*i+10) || o.Drift != "" {
			t.Errorf("%+v, want the last of 10", o)
		}
	}
}
