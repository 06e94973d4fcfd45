// Package config reads what people write: rollout files, and the settings of the worker and the gateway. Everything that is wrong
// with a file is told at once, each as file:line: path: what is wrong, and what is allowed.
package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/aviary-rollouts/aviary/rollout"
)

//go:generate go test -run TestSchemaIsUpToDate . -update

// Overrides complete a rollout file, or replace what it says. Empty fields change nothing.
type Overrides struct {
	Agent, Stable, Canary string
}

// Lookup finds an environment variable, as os.LookupEnv does.
type Lookup func(name string) (value string, ok bool)

// LoadRollout is Rollout of the file at path.
func LoadRollout(path string, overrides Overrides) (rollout.Spec, error) {
	data, err := read(path)
	if err != nil {
		return rollout.Spec{}, err
	}
	return Rollout(path, data, overrides)
}

// Rollout is the complete Spec that a rollout file stands for, with every default filled in. The filename is for messages only.
// Errors are Problems.
func Rollout(filename string, data []byte, overrides Overrides) (rollout.Spec, error) {
	root, err := document(filename, data)
	if err != nil {
		return rollout.Spec{}, err
	}
	d := newDecoder(filename)
	d.fresh = map[reflect.Type]func() any{
		reflect.TypeFor[rollout.Stage]():            func() any { return defaultStage() },
		reflect.TypeFor[rollout.RollbackCriteria](): func() any { return leastCriteria() },
		reflect.TypeFor[rollout.SlackNotice]():      func() any { return rollout.SlackNotice{Target: DefaultTarget} },
		reflect.TypeFor[rollout.WebhookNotice]():    func() any { return rollout.WebhookNotice{Target: DefaultTarget} },
	}
	d.special = map[string]func(*keyed) bool{"duration_minutes": d.durationMinutes}
	spec := defaultSpec()
	d.value(root, reflect.ValueOf(&spec).Elem(), "", 0)
	if d.spent || root.Kind != yaml.MappingNode {
		return rollout.Spec{}, d.problems.err()
	}
	d.wantWritten(spec)
	d.dropUnmeasured(&spec)
	over := overrides.apply(&spec)
	checkSpec(spec, func(path, format string, args ...any) {
		if flag, ok := over[path]; ok {
			d.problems = append(d.problems, Problem{File: flag, Message: fmt.Sprintf(format, args...)})
			return
		}
		d.report(d.written(path), format, args...)
	})
	if err := d.problems.err(); err != nil {
		return rollout.Spec{}, err
	}
	return spec, nil
}

// apply puts the overrides into spec, and returns which flag each replaced path came from.
func (o Overrides) apply(spec *rollout.Spec) map[string]string {
	flags := map[string]string{}
	for _, f := range []struct {
		path, value string
		into        *string
	}{{"agent", o.Agent, &spec.Agent}, {"stable", o.Stable, &spec.Stable}, {"canary", o.Canary, &spec.Canary}} {
		if f.value != "" {
			*f.into = f.value
			flags[f.path] = "--" + f.path
		}
	}
	return flags
}

// durationMinutes decodes the other way to write a stage's duration.
func (d *decoder) durationMinutes(k *keyed) bool {
	stage, ok := k.into.Addr().Interface().(*rollout.Stage)
	if !ok {
		return false
	}
	path := join(k.path, k.key.Value)
	value := k.value
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	minutes, ok := numberOf(value)
	switch {
	case value.Kind != yaml.ScalarNode || !ok:
		d.problem(value.Line, path, "%s, want a number of minutes; or duration: 30m", shown(value))
	case minutes < 0 || minutes > maxDuration.Minutes():
		d.problem(value.Line, path, "%s, want 0 to %.0f minutes", clip(value.Value), maxDuration.Minutes())
	default:
		stage.Duration = rollout.Duration(minutes * float64(time.Minute))
	}
	return true
}

// wantWritten reports what has no default, and what is written in two ways.
func (d *decoder) wantWritten(spec rollout.Spec) {
	for i, stage := range spec.Stages {
		path := fmt.Sprintf("canary_stages[%d]", i)
		long, minutes := d.has(path+".duration"), d.has(path+".duration_minutes")
		switch {
		case long && minutes:
			d.report(path+".duration_minutes", "duration is given too, want one of them")
		case !long && !minutes && stage.Weight != rollout.FullWeight:
			d.missing(path+".duration", "want duration: 30m or duration_minutes: 30; or 0 to wait for min_requests and checks only")
		}
		if !d.has(path + ".weight") {
			d.missing(path+".weight", "want a fraction from 0.0001 to 1, such as 0.05 for 5%%; or 0 with mirror: 0.1")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Metrics.Definitions)) {
		if path := child("metrics.definitions", name); !d.has(path + ".kind") {
			d.missing(path+".kind", "want %s", oneOf(kinds...))
		}
	}
}

// missing notes that what has no default was not written.
func (d *decoder) missing(path, format string, args ...any) {
	d.report(path, "is missing, "+format, args...)
	d.broken = append(d.broken, path)
}

// written is the path as it stands in the file.
func (d *decoder) written(path string) string {
	if other := path + "_minutes"; !d.has(path) && d.has(other) {
		return other
	}
	return path
}

// Render is a Spec as JSON, for tctl and the temporal command line: the input of the workflow Canary.
func Render(spec rollout.Spec) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // checks hold < and >
	if err := e.Encode(spec); err != nil {
		return nil, fmt.Errorf("render the rollout of %s: %w", quote(spec.Agent), err)
	}
	return out.Bytes(), nil
}

// settings decodes a process's settings file over into, which holds the defaults.
func settings(filename string, data []byte, lookup Lookup, into any) (*decoder, error) {
	root, err := document(filename, data)
	if err != nil {
		return nil, err
	}
	if lookup == nil {
		lookup = os.LookupEnv
	}
	d := newDecoder(filename)
	d.lookup = lookup
	d.value(root, reflect.ValueOf(into).Elem(), "", 0)
	if d.spent || root.Kind != yaml.MappingNode {
		return nil, d.problems.err()
	}
	return d, nil
}
