package config

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	"gopkg.in/yaml.v3"

	"github.com/aviary-rollouts/aviary/rollout"
)

const schemaFile = "../docs/rollout.schema.json"

// rolloutSchema is the JSON Schema of the rollout file, generated from rollout.Spec and the comments of its fields. It is looser
// than Rollout where a schema can't say it: weights that do not fall, checks on known metrics.
func rolloutSchema() (*jsonschema.Schema, error) {
	r := &jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true,
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			switch t {
			case reflect.TypeFor[rollout.Weight]():
				return &jsonschema.Schema{Type: "number", Minimum: "0.0001", Maximum: "1"}
			case reflect.TypeFor[rollout.Duration]():
				return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
					{Type: "string", Pattern: `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$`}, {Const: 0},
				}}
			}
			return nil
		},
	}
	if err := r.AddGoComments("github.com/aviary-rollouts/aviary/config", "../rollout"); err != nil {
		return nil, fmt.Errorf("read the comments of the fields: %w", err)
	}
	s := r.Reflect(rollout.Spec{})
	s.Title = "Aviary rollout file"
	s.Required = []string{"canary_stages"}
	for _, rule := range schemaRules {
		at := s
		if rule.def != "" {
			at = s.Definitions[rule.def]
		}
		if at == nil {
			return nil, fmt.Errorf("no type %s", rule.def)
		}
		if rule.key == "" {
			rule.apply(at)
			continue
		}
		property, ok := at.Properties.Get(rule.key)
		if !ok {
			return nil, fmt.Errorf("no key %s in %s", rule.key, rule.def)
		}
		rule.apply(property)
	}
	for _, def := range []string{"RollbackCriteria", "PromotionCriteria"} {
		for p := s.Definitions[def].Properties.Oldest(); p != nil; p = p.Next() {
			p.Value.Type, p.Value.AnyOf = "", []*jsonschema.Schema{{Type: "number", Minimum: "0"}, {Type: "null"}}
		}
	}
	return s, nil
}

// schemaRules are what the types alone do not say.
var schemaRules = []struct {
	def, key string
	apply    func(*jsonschema.Schema)
}{
	{"", "agent", named("The agent to roll out on; or by the flag --agent.")},
	{"", "stable", named("The version that users have now; or by the flag --stable.")},
	{"", "canary", named("The version to bring out; or by the flag --canary.")},
	{"", "criticality", words(rollout.Standard, rollout.Conversational, rollout.SafetyCritical)},
	{"", "canary_stages", func(s *jsonschema.Schema) { s.MinItems, s.MaxItems = new(uint64(1)), new(uint64(maxStages)) }},
	{"", "freeze_when", described("Conditions under which nothing is judged, such as \"stable.error_rate > 0.20\".")},
	{"Traffic", "driver", words(drivers...)},
	{"Traffic", "target", named("A data plane of the worker's settings.")},
	{"Traffic", "on_rollback", words(rollout.Evict, rollout.Drain, rollout.Kill)},
	{"Traffic", "object", described("Where the weights are, for the drivers istio, gateway-api and (by name only) flagd.")},
	{"Object", "", func(s *jsonschema.Schema) { s.Required = []string{"name"} }},
	{"Object", "kind", words(KindVirtualService, KindHTTPRoute, KindGRPCRoute)},
	{"Metrics", "provider", words(providers...)},
	{"Metrics", "target", named("A metrics source of the worker's settings.")},
	{"Metrics", "no_data_timeout", described("How long the canary may have traffic and report nothing; then on_no_data.")},
	{"Metrics", "on_no_data", words(rollout.PolicyPause, rollout.PolicyRollback)},
	{"Definition", "", func(s *jsonschema.Schema) { s.Required = []string{"kind", "better"} }},
	{"Definition", "kind", words(kinds...)},
	{"Definition", "quantile", described("quantile: which one, such as 0.95")},
	{"Definition", "better", words("lower", "higher")},
	{"Analysis", "method", words("sequential", "threshold")},
	{"Analysis", "advance", words("estimate", "proof", "ladder")},
	{"Analysis", "settle", described("How long after a weight change nothing is compared, 0 to 24h. Left out: by the 99th percentile of stable's durations.")},
	{"Analysis", "overdispersion", byMetric(1, maxOverdispersion, "By metric: the variance of its counts over that of independent requests, as `starter calibrate` finds it.")},
	{"Analysis", "cohort_spread", byMetric(0, maxCohortSpread, "By metric: how far cohorts of users differ by themselves, as the standard deviation of the logarithm of their ratio.")},
	{"Stage", "", func(s *jsonschema.Schema) {
		s.Required = []string{"name", "weight"}
		s.Properties.Set("duration_minutes", &jsonschema.Schema{Type: "number", Minimum: "0", Description: "duration in minutes"})
	}},
	{"Stage", "name", named("Unique among the stages.")},
	{"Stage", "mirror", described("The share of stable's requests that are copied to the canary, whose answers nobody sees. Only with weight 0.")},
	{"Stage", "weight", func(s *jsonschema.Schema) {
		s.Minimum = "0"
		s.Description = "The canary's share of new conversations, such as 0.05 for 5 %; 0 with mirror. It never falls from stage to stage."
	}},
	{"Stage", "min_requests", described("Canary requests that the stage waits for.")},
	{"Stage", "approval", words(rollout.ApprovalNone, rollout.ApprovalRequired)},
	{"Stage", "on_hold", words(rollout.PolicyPause, rollout.PolicyRollback)},
	{"Stage", "checks", described("What must hold at the end, such as \"error_rate_increase < 0.10\".")},
	{"SlackNotice", "", func(s *jsonschema.Schema) { s.Required = []string{"channel"} }},
	{"SlackNotice", "channel", described("Such as \"#agent-releases\".")},
	{"SlackNotice", "target", named("A target of the worker's settings.")},
	{"WebhookNotice", "target", named("A target of the worker's settings.")},
}

// byMetric is of numbers by the names of metrics.
func byMetric(least, most int, text string) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) {
		s.Description = text
		s.AdditionalProperties = &jsonschema.Schema{Type: "number", Minimum: json.Number(strconv.Itoa(least)), Maximum: json.Number(strconv.Itoa(most))}
	}
}

func described(text string) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Description = text }
}

func named(text string) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Description, s.Pattern = text, "^"+rollout.NamePattern+"$" }
}

func words[T ~string](allowed ...T) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) {
		for _, a := range allowed {
			s.Enum = append(s.Enum, string(a))
		}
	}
}

func TestSchemaIsUpToDate(t *testing.T) {
	t.Parallel()
	s, err := rolloutSchema()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, schemaFile, string(raw)+"\n")
}

// TestSchemaAndDecoderAgreeOnKeys wants every key of the decoder in the schema, and the reverse.
func TestSchemaAndDecoderAgreeOnKeys(t *testing.T) {
	t.Parallel()
	s, err := rolloutSchema()
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[rollout.Spec](), reflect.TypeFor[rollout.Traffic](), reflect.TypeFor[rollout.Metrics](), reflect.TypeFor[rollout.Definition](),
		reflect.TypeFor[rollout.Analysis](), reflect.TypeFor[rollout.RollbackCriteria](), reflect.TypeFor[rollout.PromotionCriteria](),
		reflect.TypeFor[rollout.Stage](), reflect.TypeFor[rollout.Notify](), reflect.TypeFor[rollout.SlackNotice](), reflect.TypeFor[rollout.WebhookNotice](),
	} {
		at := s
		if typ != reflect.TypeFor[rollout.Spec]() {
			at = s.Definitions[typ.Name()]
		}
		var got []string
		for p := at.Properties.Oldest(); p != nil; p = p.Next() {
			got = append(got, p.Key)
			if p.Value.Description == "" && p.Value.Ref == "" && p.Value.AnyOf == nil && p.Value.Enum == nil && p.Value.Type != "object" && p.Value.Items == nil {
				t.Errorf("%s.%s has no description", typ.Name(), p.Key)
			}
		}
		want := slices.Clone(fieldsOf(typ).keys)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Errorf("%s: the schema has %v, the decoder %v", typ, got, want)
		}
	}
}

func TestExamplesFollowTheSchema(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	for _, name := range rolloutExamples(t) {
		data, err := os.ReadFile(filepath.Join("../examples", name))
		if err != nil {
			t.Fatal(err)
		}
		if faults := s.validate(t, data); len(faults) > 0 {
			t.Errorf("%s: %s", name, strings.Join(faults, "\n"))
		}
	}
}

// TestSchemaRefusesFaultyFiles keeps the test above honest.
func TestSchemaRefusesFaultyFiles(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	for _, name := range []string{
		"unknown-keys", "wrong-types", "names-invalid", "weights-out-of-range", "stages-empty", "stages-too-many", "stage-incomplete",
		"words-unknown", "criteria-bad", "drivers-objects", "missing-everything", "definitions-bad", "notify-bad", "variance-bad",
	} {
		data, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.validate(t, data)) == 0 {
			t.Errorf("%s: no fault found", name)
		}
	}
}

// schema is a JSON Schema as data. It knows the keywords that rolloutSchema uses.
type schema struct{ root map[string]any }

func readSchema(t *testing.T) schema {
	t.Helper()
	raw, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(raw, &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s schema) validate(t *testing.T, data []byte) []string {
	t.Helper()
	var tree any
	if err := yaml.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(finite(tree))
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	return s.check(s.root, value, "")
}

// finite turns what JSON can't hold into text.
func finite(v any) any {
	switch x := v.(type) {
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Sprint(x)
		}
	case map[string]any:
		for k := range x {
			x[k] = finite(x[k])
		}
	case []any:
		for i := range x {
			x[i] = finite(x[i])
		}
	}
	return v
}

func (s schema) check(at map[string]any, value any, path string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, path+": "+fmt.Sprintf(format, args...)) }
	if ref, ok := at["$ref"].(string); ok {
		defs, _ := s.root["$defs"].(map[string]any)
		def, ok := defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		if !ok {
			fault("no definition %s", ref)
		}
		faults = append(faults, s.check(def, value, path)...)
	}
	if allowed, ok := at["anyOf"].([]any); ok && !slices.ContainsFunc(allowed, func(a any) bool {
		return len(s.check(a.(map[string]any), value, path)) == 0
	}) {
		fault("%v is none of what is allowed", value)
	}
	if allowed, ok := at["enum"].([]any); ok && !slices.Contains(allowed, value) {
		fault("%v, want %v", value, allowed)
	}
	if want, ok := at["const"]; ok && want != value {
		fault("%v, want %v", value, want)
	}
	if want, ok := at["type"].(string); ok && !hasType(value, want) {
		fault("%v, want %s", value, want)
	}
	switch x := value.(type) {
	case float64:
		least, hasLeast := at["minimum"].(float64)
		most, hasMost := at["maximum"].(float64)
		if hasLeast && x < least || hasMost && x > most {
			fault("%v is out of range", x)
		}
	case string:
		if pattern, ok := at["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(x) {
			fault("%q does not match %s", x, pattern)
		}
	case []any:
		least, _ := at["minItems"].(float64)
		most, hasMost := at["maxItems"].(float64)
		if float64(len(x)) < least || hasMost && float64(len(x)) > most {
			fault("%d items", len(x))
		}
		items, _ := at["items"].(map[string]any)
		for i, item := range x {
			faults = append(faults, s.check(items, item, fmt.Sprintf("%s[%d]", path, i))...)
		}
	case map[string]any:
		faults = append(faults, s.checkKeys(at, x, path)...)
	}
	return faults
}

func (s schema) checkKeys(at, value map[string]any, path string) (faults []string) {
	required, _ := at["required"].([]any)
	for _, key := range required {
		if _, ok := value[key.(string)]; !ok {
			faults = append(faults, fmt.Sprintf("%s: no %v", path, key))
		}
	}
	properties, _ := at["properties"].(map[string]any)
	for key, v := range value {
		property, known := properties[key].(map[string]any)
		if !known {
			if more, open := at["additionalProperties"].(map[string]any); open {
				property = more
			} else if at["additionalProperties"] == false {
				faults = append(faults, fmt.Sprintf("%s: unknown key %s", path, key))
			}
		}
		faults = append(faults, s.check(property, v, path+"."+key)...)
	}
	return faults
}

func hasType(value any, want string) bool {
	switch x := value.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && x == math.Trunc(x)
	case string:
		return want == "string"
	case []any:
		return want == "array"
	}
	return want == "object"
}
