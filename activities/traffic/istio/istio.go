// Package istio drives the traffic of agents whose weights stand in a VirtualService of Istio.
package istio

import (
	"errors"
	"fmt"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Driver sets and reads the weights of named http routes. It is safe for concurrent use.
type Driver struct{ *kube.Plane }

var _ traffic.Leased = Driver{}

// New is a driver of the cluster that s describes. Errors are those of kube.Open.
func New(s kube.Settings) (Driver, error) {
	client, err := kube.Open(s)
	if err != nil {
		return Driver{}, fmt.Errorf("istio driver: %w", err)
	}
	return Driver{kube.NewPlane(client, dialect)}, nil
}

// Capabilities of Istio: whole percent, chosen anew for every request. The guard takes traffic back when a lease runs out.
// Testers force the canary by a route of their own, which the driver leaves alone. Copies of requests are not driven.
func (Driver) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: dialect.Step(), Sticky: "request", Lease: true, Override: true}
}

// A VirtualService takes whole percent that add up to 100. A weight that is not written down is 0.
var dialect = kube.Dialect{
	Kinds: []kube.Kind{{
		Name: "VirtualService", Short: "vs", Group: "networking.istio.io", Versions: []string{"v1", "v1beta1"}, Resource: "virtualservices",
	}},
	Rules: []string{"spec", "http"}, RuleWord: "http route", Destinations: "route", Total: 100, Destination: destination,
}

func destination(entry map[string]any) (rollout.Destination, error) {
	to, _ := entry["destination"].(map[string]any)
	host, _ := to["host"].(string)
	if host == "" {
		return rollout.Destination{}, errors.New("a route without a destination's host")
	}
	subset, _ := to["subset"].(string)
	return rollout.Destination{Host: host, Subset: subset}, nil
}
