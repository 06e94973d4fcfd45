// Package gatewayapi drives the traffic of agents whose weights stand in an HTTPRoute or a GRPCRoute of the Gateway API.
package gatewayapi

import (
	"errors"
	"fmt"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Driver sets and reads the weights of named rules. It is safe for concurrent use.
type Driver struct{ *kube.Plane }

var _ traffic.Leased = Driver{}

// New is a driver of the cluster that s describes. Errors are those of kube.Open.
func New(s kube.Settings) (Driver, error) {
	client, err := kube.Open(s)
	if err != nil {
		return Driver{}, fmt.Errorf("gateway-api driver: %w", err)
	}
	return Driver{kube.NewPlane(client, dialect)}, nil
}

// Capabilities of the Gateway API: every basis point, chosen anew for every request. The guard takes traffic back when a lease
// runs out. Testers force the canary by a rule of their own, which the driver leaves alone. Copies of requests are not driven.
func (Driver) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: dialect.Step(), Sticky: "request", Lease: true, Override: true}
}

const group = "gateway.networking.k8s.io"

// Weights of the Gateway API are shares of their sum, which is made 10,000: basis points. One that is not written down is 1.
var dialect = kube.Dialect{
	Kinds: []kube.Kind{
		{Name: "HTTPRoute", Short: "http", Group: group, Versions: []string{"v1", "v1beta1"}, Resource: "httproutes"},
		{Name: "GRPCRoute", Short: "grpc", Group: group, Versions: []string{"v1"}, Resource: "grpcroutes"},
	},
	Rules: []string{"spec", "rules"}, RuleWord: "rule", Destinations: "backendRefs", Total: int64(rollout.FullWeight), Unset: 1,
	Destination: destination, Settled: settled,
}

func destination(entry map[string]any) (rollout.Destination, error) {
	name, _ := entry["name"].(string)
	if name == "" {
		return rollout.Destination{}, errors.New("a backendRef without a name")
	}
	if kind, ok := entry["kind"].(string); ok && kind != "Service" {
		return rollout.Destination{}, fmt.Errorf("backendRef %q is a %s, want a Service", name, kind)
	}
	return rollout.Destination{Host: name}, nil
}
