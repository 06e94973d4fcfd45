package kube

import "testing"

func TestServiceOf(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"bot-a": "agents/bot-a", "bot-a.other.svc.cluster.local": "other/bot-a", "bot-a.other.svc": "other/bot-a",
		"bot.example.com": "", "bot.other": "",
	} {
		name, namespace, ok := serviceOf(host, "agents")
		got := ""
		if ok {
			got = namespace + "/" + name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}
