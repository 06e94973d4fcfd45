// Package ext stands for Traefik's own extension point, which its published module leaves out: structs without a field.
package ext

// HTTP adds nothing to Traefik's dynamic configuration.
type HTTP struct{}

// Router adds nothing to a router of that configuration.
type Router struct{}
