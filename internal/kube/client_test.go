package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	const text = `{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: u, user: {token: t}}],
contexts: [{name: here, context: {cluster: c, user: u}}], current-context: here}`
	if err := os.WriteFile(good, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		settings Settings
		want     string
	}{
		"its current context":    {Settings{Kubeconfig: good}, ""},
		"a context":              {Settings{Kubeconfig: good, Context: "here"}, ""},
		"another context":        {Settings{Kubeconfig: good, Context: "there"}, `"there" does not exist`},
		"no file":                {Settings{Kubeconfig: filepath.Join(dir, "none")}, "read the kubeconfig " + filepath.Join(dir, "none")},
		"no cluster around":      {Settings{}, "as no kubeconfig is named"},
		"a context without file": {Settings{Context: "here"}, `context "here" is of a kubeconfig, and none is named`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(test.settings)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
