package kube

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// percent is a dialect as Istio's.
var percent = Dialect{
	Kinds: []Kind{{Name: "VirtualService", Short: "vs", Group: "networking.istio.io", Versions: []string{"v1", "v1beta1"}, Resource: "virtualservices"}},
	Rules: []string{"spec", "http"}, RuleWord: "http route", Destinations: "route", Total: 100,
	Destination: func(entry map[string]any) (rollout.Destination, error) {
		to, _ := entry["destination"].(map[string]any)
		host, _ := to["host"].(string)
		subset, _ := to["subset"].(string)
		if host == "" {
			return rollout.Destination{}, errors.New("no host")
		}
		return rollout.Destination{Host: host, Subset: subset}, nil
	},
}

var (
	a = rollout.Destination{Host: "bot-a"}
	b = rollout.Destination{Host: "bot-b"}
)

func file() *rollout.Object {
	return &rollout.Object{Namespace: "agents", Name: "bot", Rule: "weighted", Stable: a, Canary: b}
}

func route(owner string, revision int64, weight rollout.Weight) rollout.Route {
	return rollout.Route{Agent: "bot", Stable: "v1", Canary: "v2", Weight: weight, Owner: owner, Revision: revision, Object: file()}
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	var o unstructured.Unstructured
	if err := o.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return &o
}

const service = `{"apiVersion":"networking.istio.io/v1","kind":"VirtualService",
	"metadata":{"name":"bot","namespace":"agents","uid":"u","resourceVersion":"7"METADATA},
	"spec":{"http":[{"name":"testers","route":[{"destination":{"host":"bot-b"}}]},{"name":"weighted","route":[ROUTE]}]}}`

const both = `{"destination":{"host":"bot-a"},"weight":95},{"destination":{"host":"bot-b"},"weight":5}`

func read(t *testing.T, route string, set *record) found {
	t.Helper()
	o := object(t, strings.NewReplacer("METADATA", "", "ROUTE", route).Replace(service))
	f := found{object: o, kind: percent.Kinds[0]}
	if set != nil {
		o.SetAnnotations(set.annotations())
		o.SetLabels(map[string]string{AgentLabel: "bot"})
		f.set, f.known, f.marked = *set, true, true
	}
	var err error
	if f.rule, err = percent.find(o, "weighted"); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFind(t *testing.T) {
	t.Parallel()
	const of = `{"kind":"VirtualService","apiVersion":"v1","metadata":{"name":"bot","namespace":"agents"},"spec":{"http":[`
	for name, test := range map[string]struct{ http, want string }{
		"none":       {`]}}`, `VirtualService agents/bot has no http route named "weighted", it has none`},
		"missing":    {`{"name":"x"},{}]}}`, `VirtualService agents/bot has no http route named "weighted", it has x, one without a name`},
		"doubled":    {`{"name":"weighted"},{"name":"weighted"}]}}`, `VirtualService agents/bot has two http routes named "weighted", want one`},
		"empty":      {`{"name":"weighted"}]}}`, `it goes to nothing, want two destinations`},
		"one":        {`{"name":"weighted","route":[{"destination":{"host":"a"}}]}]}}`, `it goes to a, want two destinations`},
		"three":      {`{"name":"weighted","route":[` + both + `,{"destination":{"host":"c"}}]}]}}`, `it goes to bot-a, bot-b, c, want two`},
		"twice":      {`{"name":"weighted","route":[` + both[:strings.Index(both, "},{")+1] + `,{"destination":{"host":"bot-a"}}]}]}}`, `it goes to bot-a, bot-a, want two`},
		"negative":   {`{"name":"weighted","route":[{"destination":{"host":"a"},"weight":-1}]}]}}`, `weight -1 of a, want 0 or more`},
		"unreadable": {`{"name":"weighted","route":[{"destination":{}}]}]}}`, `http route "weighted": no host`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := percent.find(object(t, of+test.http), "weighted")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b int64
		want rollout.Weight
		some bool
	}{
		{95, 5, 500, true}, {100, 0, 0, true}, {0, 100, 10000, true}, {0, 0, 0, false}, {77, 98, 5600, true}, {9, 1, 1000, true},
		{1_000_000, 1, 1, true}, {1, 1_000_000, 9999, true}, {1, 1, 5000, true},
	} {
		got, some := rule{places: []place{{a, test.a}, {b, test.b}}}.share(b)
		if got != test.want || some != test.some {
			t.Errorf("%d + %d: share %d, %v, want %d, %v", test.a, test.b, got, some, test.want, test.some)
		}
	}
}

func TestOwned(t *testing.T) {
	t.Parallel()
	set := record{owner: "first", revision: 5, rule: "weighted", stable: "v1", stableAt: a, canary: "v2", canaryAt: b, weight: 500}
	const none = `{"destination":{"host":"bot-a"},"weight":100},{"destination":{"host":"bot-b"},"weight":0}`
	for name, test := range map[string]struct {
		route  string
		apply  rollout.Route
		change func(*rollout.Route)
		lost   bool
	}{
		"same":                           {both, route("first", 5, 500), nil, false},
		"later":                          {both, route("first", 6, 700), nil, false},
		"older":                          {both, route("first", 4, 500), nil, true},
		"older, nothing exposed":         {none, route("first", 4, 500), nil, true},
		"other owner, exposed":           {both, route("second", 9, 500), nil, true},
		"other owner, nothing exposed":   {none, route("second", 1, 500), nil, false},
		"rollback of one replaced":       {none, route("second", 1, 0), func(r *rollout.Route) { r.Rollback = true }, true},
		"promotion of one replaced":      {none, route("second", 1, 0), func(r *rollout.Route) { r.Promoted = true }, true},
		"rollback by the owner, exposed": {both, route("first", 6, 0), func(r *rollout.Route) { r.Rollback = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := read(t, test.route, &set)
			if test.change != nil {
				test.change(&test.apply)
			}
			err := f.owned(test.apply)
			var lost *traffic.OwnershipLost
			if errors.As(err, &lost) != test.lost || err != nil && !test.lost {
				t.Fatalf("error %v, want lost: %v", err, test.lost)
			}
			if test.lost && (lost.Owner != "first" || lost.Revision != 5) {
				t.Errorf("%+v, want first at 5", lost)
			}
		})
	}
}

// The two destinations take turns: nobody edits the route between rollouts.
func TestRoles(t *testing.T) {
	t.Parallel()
	running := record{owner: "o", revision: 1, rule: "weighted", stable: "v1", stableAt: a, canary: "v2", canaryAt: b, weight: 500}
	promoted := record{owner: "o", revision: 2, rule: "weighted", stable: "v2", stableAt: b, canaryAt: a}
	for name, test := range map[string]struct {
		set            *record
		http           string
		change         func(*rollout.Route)
		stable, canary rollout.Destination
		reject         string
	}{
		"first":                  {nil, both, nil, a, b, ""},
		"first, the wrong way":   {nil, strings.NewReplacer("95", "0", "5", "100").Replace(both), nil, a, b, "the other way round"},
		"running":                {&running, both, nil, a, b, ""},
		"promotion":              {&running, both, func(r *rollout.Route) { r.Stable, r.Canary, r.Promoted = "v2", "", true }, b, a, ""},
		"promotion again":        {&promoted, both, func(r *rollout.Route) { r.Stable, r.Canary, r.Promoted = "v2", "", true }, b, a, ""},
		"next rollout":           {&promoted, both, func(r *rollout.Route) { r.Stable, r.Canary = "v2", "v3" }, b, a, ""},
		"rollback of promoted":   {&promoted, both, func(r *rollout.Route) { r.Rollback = true }, a, b, ""},
		"another stable":         {&running, both, func(r *rollout.Route) { r.Stable = "v9" }, a, b, "stable is v1, on bot-a, the rollout says v9"},
		"canary called stable":   {&running, both, func(r *rollout.Route) { r.Stable = "v2" }, a, b, "stable is v1, on bot-a, the rollout says v2"},
		"rollback of a stranger": {&running, both, func(r *rollout.Route) { r.Stable, r.Rollback = "v0", true }, a, b, ""},
		"other destinations":     {nil, strings.ReplaceAll(both, "bot-b", "bot-c"), nil, a, b, "it goes to bot-a, bot-c, the rollout file wants it to go to bot-a and bot-b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := read(t, test.http, test.set)
			r := route("o", 3, 500)
			if test.change != nil {
				test.change(&r)
			}
			stable, canary, err := f.roles(r, *r.Object)
			if test.reject != "" {
				var rejected *traffic.Rejected
				if !errors.As(err, &rejected) || !strings.Contains(err.Error(), test.reject) {
					t.Errorf("error %v, want a refusal with %q", err, test.reject)
				}
				return
			}
			if err != nil || stable != test.stable || canary != test.canary {
				t.Errorf("stable %s, canary %s, error %v, want %s and %s", stable, canary, err, test.stable, test.canary)
			}
		})
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()
	set := record{owner: "o", revision: 1, rule: "weighted", stable: "v1", stableAt: a, canary: "v2", canaryAt: b, weight: 500}
	next := set
	next.revision, next.weight = 2, 2000
	for name, test := range map[string]struct {
		set  *record
		want record
		ops  []string
	}{
		"the first": {nil, set, []string{
			`test /metadata/uid "u"`, `test /spec/http/1/name "weighted"`,
			`test /spec/http/1/route [{"destination":{"host":"bot-a"},"weight":95},{"destination":{"host":"bot-b"},"weight":5}]`,
			`test /metadata/resourceVersion "7"`, `add /metadata/annotations {}`,
			`add /metadata/annotations/aviary.dev~1owner "o"`, `add /metadata/annotations/aviary.dev~1revision "1"`,
			`add /metadata/annotations/aviary.dev~1rule "weighted"`, `add /metadata/annotations/aviary.dev~1stable "v1"`,
			`add /metadata/annotations/aviary.dev~1stable-destination "bot-a"`, `add /metadata/annotations/aviary.dev~1canary "v2"`,
			`add /metadata/annotations/aviary.dev~1canary-destination "bot-b"`, `add /metadata/annotations/aviary.dev~1weight "500"`,
			`add /metadata/labels {"aviary.dev/agent":"bot"}`,
		}},
		"the next": {&set, next, []string{
			`test /metadata/uid "u"`, `test /spec/http/1/name "weighted"`,
			`test /spec/http/1/route [{"destination":{"host":"bot-a"},"weight":95},{"destination":{"host":"bot-b"},"weight":5}]`,
			`test /metadata/annotations/aviary.dev~1owner "o"`, `test /metadata/annotations/aviary.dev~1revision "1"`,
			`add /spec/http/1/route/0/weight 80`, `add /spec/http/1/route/1/weight 20`,
			`add /metadata/annotations/aviary.dev~1revision "2"`, `add /metadata/annotations/aviary.dev~1weight "2000"`,
		}},
		"expiry": {&set, func() record { r := set; r.expired = true; return r }(), []string{
			`test /metadata/uid "u"`, `test /spec/http/1/name "weighted"`,
			`test /spec/http/1/route [{"destination":{"host":"bot-a"},"weight":95},{"destination":{"host":"bot-b"},"weight":5}]`,
			`test /metadata/annotations/aviary.dev~1owner "o"`, `test /metadata/annotations/aviary.dev~1revision "1"`,
			`add /spec/http/1/route/0/weight 100`, `add /spec/http/1/route/1/weight 0`, `add /metadata/annotations/aviary.dev~1expired "1"`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := read(t, both, test.set).patch(percent, test.want, "bot")
			if err != nil {
				t.Fatal(err)
			}
			var ops []struct {
				Op, Path string
				Value    json.RawMessage
			}
			if err := json.Unmarshal(data, &ops); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range ops {
				got = append(got, o.Op+" "+o.Path+" "+string(o.Value))
			}
			if diff := cmp.Diff(test.ops, got); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []record{
		{owner: "canary/bot/1", revision: 1 << 40, rule: "weighted", stable: "v1", stableAt: a, canary: "v2", canaryAt: rollout.Destination{Host: "bot", Subset: "s"}, weight: 10000},
		{owner: "o", stable: "v1", stableAt: a, canaryAt: b, expired: true},
	} {
		got, ok, err := recordOf(want.annotations())
		if err != nil || !ok || got != want {
			t.Errorf("got %+v, %v, %v, want %+v", got, ok, err, want)
		}
	}
	for key, value := range map[string]string{revisionKey: "x", weightKey: ""} {
		annotations := record{owner: "o", stable: "v1"}.annotations()
		annotations[key] = value
		if _, _, err := recordOf(annotations); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is %q: error %v, want one that names it", key, value, err)
		}
	}
	if _, ok, err := recordOf(nil); ok || err != nil {
		t.Errorf("a record of nothing: %v, %v", ok, err)
	}
}

func TestLeaseName(t *testing.T) {
	t.Parallel()
	if got := leaseName(percent.Kinds[0], "bot"); got != "aviary-vs-bot" {
		t.Errorf("name %q, want aviary-vs-bot", got)
	}
	long := strings.Repeat("a", 240) + "."
	x, y := leaseName(percent.Kinds[0], long+"xxxxxxxxxxxx"), leaseName(percent.Kinds[0], long+"yyyyyyyyyyyy")
	if x == y || len(x) > maxName || len(y) > maxName {
		t.Errorf("names %q and %q, want two of at most %d bytes", x, y, maxName)
	}
}

func TestChangedBy(t *testing.T) {
	t.Parallel()
	o := object(t, `{"kind":"VirtualService","apiVersion":"v1","metadata":{"name":"bot","managedFields":[
		{"manager":"kubectl","operation":"Update","time":"2024-05-01T10:00:00Z","fieldsV1":{"f:spec":{"f:http":{}}}},
		{"manager":"argocd-controller","operation":"Apply","time":"2024-05-01T11:00:00Z","fieldsV1":{"f:spec":{"f:http":{}}}},
		{"manager":"platform","operation":"Update","time":"2024-05-01T11:30:00Z","fieldsV1":{"f:spec":{"f:hosts":{}}}},
		{"manager":"labeller","operation":"Update","time":"2024-05-01T12:00:00Z","fieldsV1":{"f:metadata":{}}},
		{"manager":"istiod","operation":"Update","subresource":"status","time":"2024-05-01T12:00:00Z","fieldsV1":{"f:status":{},"f:spec":{"f:http":{}}}},
		{"manager":"aviary","operation":"Update","time":"2024-05-01T13:00:00Z","fieldsV1":{"f:spec":{"f:http":{}}}}]}}`)
	if got, want := percent.changedBy(o), "argocd-controller (Apply) at 2024-05-01T11:00:00Z"; got != want {
		t.Errorf("changed by %q, want %q", got, want)
	}
}
