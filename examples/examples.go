// Package examples holds rollout files and settings to start from, embedded for the demo.
package examples

import "embed"

// Files are the YAML files of this folder.
//
//go:embed *.yaml
var Files embed.FS
