//go:build tools

// Package tools pins the istiod that the tests of Kubernetes drivers run against, and the definitions of its kinds and the Gateway API's. It is a
// module of its own: its requirements are nobody else's.
package tools

import (
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
)
