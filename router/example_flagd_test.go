package router_test

import (
	"fmt"

	"github.com/aviary-rollouts/aviary/router"
)

// A client asks flagd which version to show, the gateway sends its requests to the same one: both divide by the rollout's owner.
func ExampleFlagdTargeting() {
	rule, err := router.FlagdTargeting("canary/support-agent/1", 500)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(rule))
	bucket := router.FlagdBucket("user-7", "canary/support-agent/1")
	fmt.Println("user-7 comes to the canary at a weight above", bucket)
	// Output:
	// {"if":[{"var":"targetingKey"},{"or":[{"fractional":[{"cat":["canary/support-agent/1",{"var":"targetingKey"}]},["canary",500],["stable",9500]]},"stable"]},"stable"]}
	// user-7 comes to the canary at a weight above 5953
}
