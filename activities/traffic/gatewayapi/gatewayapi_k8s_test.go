//go:build k8s

package gatewayapi_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/activities/traffic/gatewayapi"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/internal/kube"
)

// dialect is of one kind of route. Without parents nothing has to be accepted.
func dialect(kind, resource string) traffictest.KubeDialect {
	return traffictest.KubeDialect{
		Open: func(s kube.Settings) (traffic.Leased, error) { return gatewayapi.New(s) },
		Kind: kind, Resource: schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: resource},
		Object: func(string) *unstructured.Unstructured {
			to := func(name string, weight int64) map[string]any {
				return map[string]any{"name": name, "port": int64(8080), "weight": weight}
			}
			return &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
				"spec": map[string]any{"hostnames": []any{"bot.internal"}, "rules": []any{
					map[string]any{
						"name":        "testers",
						"matches":     []any{map[string]any{"headers": []any{map[string]any{"name": "x-canary", "value": "true"}}}},
						"backendRefs": []any{to("bot-b", 1)},
					},
					map[string]any{"name": "weighted", "backendRefs": []any{to("bot-a", 10000), to("bot-b", 0)}},
				}},
			}}
		},
		Rules: []string{"spec", "rules"}, Destinations: "backendRefs", Total: 10000,
		Parent: func(o *unstructured.Unstructured) {
			o.Object["spec"].(map[string]any)["parentRefs"] = []any{map[string]any{"name": "gateway"}}
		},
		Status: status,
	}
}

// status is what a controller says of a route.
func status(generation int64, resolved bool) map[string]any {
	condition := func(kind, status, reason string) map[string]any {
		return map[string]any{
			"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": generation,
			"lastTransitionTime": "2024-05-01T10:00:00Z",
		}
	}
	refs := condition("ResolvedRefs", "True", "ResolvedRefs")
	if !resolved {
		refs = condition("ResolvedRefs", "False", "BackendNotFound")
	}
	return map[string]any{"parents": []any{map[string]any{
		"controllerName": "example.com/controller",
		"parentRef":      map[string]any{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"},
		"conditions":     []any{condition("Accepted", "True", "Accepted"), refs},
	}}}
}

func TestHTTPRouteOnKubernetes(t *testing.T) {
	t.Parallel()
	traffictest.RunKube(t, traffictest.Cluster(t), dialect("HTTPRoute", "httproutes"))
}

func TestGRPCRouteOnKubernetes(t *testing.T) {
	t.Parallel()
	traffictest.RunKube(t, traffictest.Cluster(t), dialect("GRPCRoute", "grpcroutes"))
}

func TestExample(t *testing.T) {
	t.Parallel()
	traffictest.RunKubeExample(t, traffictest.Cluster(t), dialect("HTTPRoute", "httproutes"), "gateway-api.yaml", "http-route.yaml")
}
