//go:build k8s

package istio_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/activities/traffic/istio"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/internal/kube"
)

var dialect = traffictest.KubeDialect{
	Open:     func(s kube.Settings) (traffic.Leased, error) { return istio.New(s) },
	Resource: schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
	Object: func(string) *unstructured.Unstructured {
		to := func(host string, weight int64) map[string]any {
			return map[string]any{"destination": map[string]any{"host": host, "port": map[string]any{"number": int64(8080)}}, "weight": weight}
		}
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
			"spec": map[string]any{"hosts": []any{"bot.internal"}, "http": []any{
				map[string]any{
					"name":  "testers",
					"match": []any{map[string]any{"headers": map[string]any{"x-canary": map[string]any{"exact": "true"}}}},
					"route": []any{to("bot-b", 100)},
				},
				map[string]any{"name": "weighted", "route": []any{to("bot-a", 100), to("bot-b", 0)}},
			}},
		}}
	},
	Rules: []string{"spec", "http"}, Destinations: "route", Total: 100, Older: "v1beta1",
}

func TestOnKubernetes(t *testing.T) {
	t.Parallel()
	traffictest.RunKube(t, traffictest.Cluster(t), dialect)
}

func TestExample(t *testing.T) {
	t.Parallel()
	traffictest.RunKubeExample(t, traffictest.Cluster(t), dialect, "istio.yaml", "canary-virtual-service.yaml")
}
