package gatewayapi

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestSettled(t *testing.T) {
	t.Parallel()
	const yes = `{"type":"Accepted","status":"True","observedGeneration":3},{"type":"ResolvedRefs","status":"True","observedGeneration":3}`
	const ours, other = `{"name":"gw"}`, `{"name":"gw","namespace":"edge","sectionName":"https","port":443}`
	parent := func(ref, conditions string) string {
		return `{"parentRef":` + ref + `,"conditions":[` + conditions + `]}`
	}
	for name, test := range map[string]struct{ refs, parents, want string }{
		"nobody to ask":       {``, ``, ``},
		"taken":               {ours, parent(`{"group":"gateway.networking.k8s.io","kind":"Gateway","namespace":"agents","name":"gw"}`, yes), ``},
		"both taken":          {ours + "," + other, parent(ours, yes) + "," + parent(other, yes), ``},
		"silent":              {ours, ``, `Gateway agents/gw has not said anything about it`},
		"one is silent":       {ours + "," + other, parent(ours, yes), `Gateway edge/gw has not said anything about it`},
		"of before":           {ours, parent(ours, strings.ReplaceAll(yes, "3", "2")), `Gateway agents/gw: condition Accepted is of generation 2, want 3`},
		"no such Service":     {ours, parent(ours, strings.Replace(yes, `"ResolvedRefs","status":"True"`, `"ResolvedRefs","status":"False","reason":"BackendNotFound","message":"no bot-b"`, 1)), `condition ResolvedRefs is False: BackendNotFound: no bot-b`},
		"half of it":          {ours, parent(ours, yes[:strings.Index(yes, ",{")]), `condition ResolvedRefs is not there`},
		"a second controller": {ours, parent(ours, ``) + "," + parent(ours, yes), ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o unstructured.Unstructured
			if err := o.UnmarshalJSON([]byte(`{"kind":"HTTPRoute","apiVersion":"gateway.networking.k8s.io/v1","metadata":{"name":"bot","namespace":"agents","generation":3},
				"spec":{"parentRefs":[` + test.refs + `]},"status":{"parents":[` + test.parents + `]}}`)); err != nil {
				t.Fatal(err)
			}
			err := settled(o.Object)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestDestination(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"name":"bot-a"}`: "bot-a",
		`{"name":"bot-a","kind":"Service","port":80}`: "bot-a",
		`{"name":"bot-a","kind":"InferencePool"}`:     `backendRef "bot-a" is a InferencePool, want a Service`,
		`{}`: "a backendRef without a name",
	} {
		var entry map[string]any
		if err := json.Unmarshal([]byte(text), &entry); err != nil {
			t.Fatal(err)
		}
		at, err := destination(entry)
		if got := at.String(); err == nil && got != want || err != nil && err.Error() != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}
