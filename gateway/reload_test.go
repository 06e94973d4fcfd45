package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/router/api"
)

// edit replaces text in a file.
func edit(t *testing.T, path string, pairs ...string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(pairs...).Replace(string(raw))
	if text == string(raw) {
		t.Fatalf("nothing to replace in:\n%s", raw)
	}
	write(t, path, text)
}

func TestSettingsAreTakenOverWhileRunning(t *testing.T) {
	t.Parallel()
	agents := newAgents(t)
	settings := settingsFile(t, t.TempDir(), agents, "drain_deadline: 1h\n")
	p := start(t, settings)
	route := api.Route{Stable: "v41", Canary: "v42", Weight: 10000, Owner: "run1", Revision: 1, LeaseMillis: 600_000}
	if _, err := p.client.PutRoute(t.Context(), "support-agent", route); err != nil {
		t.Fatal(err)
	}

	edit(t, settings, agents+"/v42}", agents+"/moved}\n      v43: {url: "+agents+"/v43}", "drain_deadline: 1h", "drain_deadline: 2h")
	eventually(t, "the canary is asked where it moved to", func() bool { return p.ask(t) == "/moved/chat" })
	if o, err := p.client.Route(t.Context(), "support-agent"); err != nil || o.EffectiveWeight != 10000 || len(o.Versions) != 3 {
		t.Errorf("after the change the route is %+v, %v", o, err)
	}
	eventually(t, "what needs a restart is named", func() bool {
		return strings.Contains(p.err.String(), "need a restart") && strings.Contains(p.err.String(), "drain_deadline")
	})

	// What a rollout uses can't be taken out, and nothing else of the same change is taken over.
	edit(t, settings, "      v42: {url: "+agents+"/moved}\n", "", agents+"/v43}", agents+"/v43moved}")
	eventually(t, "the refusal is told", func() bool { return strings.Contains(p.err.String(), "is the canary of rollout run1") })
	if got := p.ask(t); got != "/moved/chat" {
		t.Errorf("after a refused change: %q", got)
	}
	known, err := p.client.Agents(t.Context())
	if err != nil || len(known.Agents) != 1 || known.Agents[0].Versions["v43"].URL != agents+"/v43" {
		t.Errorf("after a refused change the registry is %+v, %v", known, err)
	}

	// A file that can't be read is told of with the line, and changes nothing.
	edit(t, settings, "stable: v41", "stabel: v41")
	eventually(t, "the mistake is told with its place", func() bool { return strings.Contains(p.err.String(), "stabel") })
	if got := p.ask(t); got != "/moved/chat" {
		t.Errorf("after settings with a mistake: %q", got)
	}
	if err := os.Remove(settings); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file that is gone is told of", func() bool { return strings.Contains(p.err.String(), "settings not read again") })
}

// TestSettingsAreInForceThoughTheStateCanNotBeSaved: what is in force is said, all of it is, and it is saved as soon as it can be.
func TestSettingsAreInForceThoughTheStateCanNotBeSaved(t *testing.T) {
	t.Parallel()
	agents, dir := newAgents(t), t.TempDir()
	settings := settingsFile(t, dir, agents, "")
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	edit(t, settings, "/state.json", "/state/state.json")
	p := start(t, settings)
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	edit(t, settings, agents+"/v41}", agents+"/moved}\n      v43: {url: "+agents+"/v43, fingerprint: abc}")
	eventually(t, "stable is asked where it moved to", func() bool { return p.ask(t) == "/moved/chat" })
	eventually(t, "what is in force and what is not saved is told", func() bool {
		return strings.Contains(p.err.String(), "settings taken over") && strings.Contains(p.err.String(), "the state is not saved")
	})
	if strings.Contains(p.err.String(), "those of before stay") {
		t.Errorf("told that nothing changed:\n%s", p.err)
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the state is saved", func() bool {
		raw, err := os.ReadFile(filepath.Join(state, "state.json"))
		return err == nil && strings.Contains(string(raw), `"v43"`)
	})
}
