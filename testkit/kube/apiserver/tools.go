//go:build tools

// Package tools pins the Kubernetes API server that the tests of Kubernetes drivers run against. It is a module of its own: its requirements
// are nobody else's.
package tools

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
