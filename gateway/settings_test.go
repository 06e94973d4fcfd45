package main

import (
	"log/slog"
	"testing"

	"github.com/aviary-rollouts/aviary/config"
)

func TestSettingsReachTheRouter(t *testing.T) {
	t.Parallel()
	const settings = `admin_token_env: TOKEN
sticky_memory: 5000
agents:
  plain: {stable: v1, versions: {v1: {url: "http://127.0.0.1:1"}}}
  flagged: {stable: v1, hash: flagd, versions: {v1: {url: "http://127.0.0.1:1"}}}
`
	g, err := config.ParseGateway("gateway.yaml", []byte(settings), func(string) (string, bool) { return "hush", true })
	if err != nil {
		t.Fatal(err)
	}
	o, err := routerOptions(g, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if o.StickyMemory != 5000 || o.Agents["flagged"].Hash != "flagd" || o.Agents["plain"].Hash != "" {
		t.Errorf("sticky memory %d, hashes %q and %q: want 5000, flagd and none", o.StickyMemory, o.Agents["flagged"].Hash, o.Agents["plain"].Hash)
	}
}
