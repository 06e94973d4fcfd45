package config

import (
	"encoding"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Bounds on a document, so that aliases can't make a small file large.
const (
	maxValues = 20_000
	maxDepth  = 32
)

// decoder fills Go values from a YAML tree, strictly: unknown and repeated keys, wrong types and empty values are problems, each
// with its line. It is written by hand because yaml.v3 stops being strict inside of custom types, and gives up at the first
// unknown key with no place for a path.
type decoder struct {
	file     string
	dir      string                       // that a Path is relative to
	fresh    map[reflect.Type]func() any  // what a struct holds before its keys are read, where it differs from what is there
	lookup   Lookup                       // environment
	special  map[string]func(*keyed) bool // further keys, by name; false: not one of this struct
	lines    map[string]int               // by path
	problems Problems
	broken   []string // paths that hold no value, because what was written can't be one
	values   int      // seen so far
	spent    bool
}

// keyed is a key of a mapping that is being decoded into a struct.
type keyed struct {
	key, value *yaml.Node
	into       reflect.Value
	path       string // of the mapping
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, dir: filepath.Dir(file), lines: map[string]int{}}
}

// problem notes that what was written at path can't be read.
func (d *decoder) problem(line int, path, format string, args ...any) {
	d.broken = append(d.broken, path)
	d.note(line, path, format, args...)
}

// note notes what is wrong at a line.
func (d *decoder) note(line int, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: max(1, line), Path: path, Message: fmt.Sprintf(format, args...)})
}

// report notes what is wrong with the value at path, unless there is none because it, or a part of it, could not be read.
func (d *decoder) report(path, format string, args ...any) {
	for _, b := range d.broken {
		if within(b, path) || within(path, b) {
			return
		}
	}
	d.note(d.line(path), path, format, args...)
}

// within reports whether path is outer, or lies below it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && outer != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// line is where path was written, or the nearest thing above it.
func (d *decoder) line(path string) int {
	for {
		if n, ok := d.lines[path]; ok {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return 1
		}
		path = path[:i]
	}
}

// has reports whether path was written.
func (d *decoder) has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// value decodes n into v.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if d.values++; d.values > maxValues || depth > maxDepth {
		if !d.spent {
			d.problem(n.Line, path, "more than %d values or %d levels, aliases included", maxValues, maxDepth)
		}
		d.spent = true
	}
	if d.spent {
		return
	}
	if n.Kind == yaml.AliasNode {
		d.value(n.Alias, v, path, depth+1)
		return
	}
	if isNull(n) {
		if v.Type() == reflect.TypeFor[*float64]() {
			v.SetZero() // null switches a criterion off
			return
		}
		d.problem(n.Line, path, "is empty, want %s; or leave the key out", want(v.Type()))
		return
	}
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		d.value(n, fresh.Elem(), path, depth+1)
		v.Set(fresh)
		return
	}
	if v.Kind() == reflect.Struct && !v.Addr().Type().Implements(textUnmarshaler) {
		d.structure(n, v, path, depth)
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		d.list(n, v, path, depth)
	case reflect.Map:
		d.mapping(n, v, path, depth)
	default:
		d.scalar(n, v, path)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// list decodes a sequence.
func (d *decoder) list(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		d.problem(n.Line, path, "%s, want %s", shown(n), want(v.Type()))
		return
	}
	v.SetZero()
	for i, item := range n.Content {
		p := fmt.Sprintf("%s[%d]", path, i)
		d.lines[p] = item.Line
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(item, element, p, depth+1)
		if d.spent {
			return
		}
		v.Set(reflect.Append(v, element))
	}
}

// mapping decodes a mapping with keys of the writer's choice.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(n, path, want(v.Type()), func(key, value *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(value, element, child(path, key.Value), depth+1)
		v.SetMapIndex(reflect.ValueOf(key.Value), element)
	})
	if v.Len() == 0 {
		v.SetZero() // as it is after Render, which leaves it out
	}
}

// entries calls each for every key of a mapping that is text and new.
func (d *decoder) entries(n *yaml.Node, path, want string, each func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		d.problem(n.Line, path, "%s, want %s", shown(n), want)
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !d.spent; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch before, twice := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.note(key.Line, path, "%s as a key, want text", shown(key))
		case key.ShortTag() == "!!merge":
			d.note(key.Line, path, "merge keys (<<) are not read, want the keys written out")
		case twice:
			d.note(key.Line, child(path, key.Value), "is written twice, first on line %d; want it once", before)
		default:
			first[key.Value] = key.Line
			d.lines[child(path, key.Value)] = key.Line
			each(key, value)
		}
	}
}

// structure decodes a mapping with known keys.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string, depth int) {
	if fresh := d.fresh[v.Type()]; fresh != nil && n.Kind == yaml.MappingNode {
		v.Set(reflect.ValueOf(fresh()))
	}
	fields := fieldsOf(v.Type())
	d.entries(n, path, want(v.Type()), func(key, value *yaml.Node) {
		p := child(path, key.Value)
		if f, ok := fields.byKey[key.Value]; ok {
			into := v.FieldByIndex(f.Index)
			if into.Type() == reflect.TypeFor[Secret]() {
				d.secret(value, into, key.Value, p)
				return
			}
			d.value(value, into, p, depth+1)
			return
		}
		if more := d.special[key.Value]; more != nil && more(&keyed{key, value, v, path}) {
			return
		}
		if slices.Contains(fields.secrets, key.Value) {
			d.note(key.Line, p, "a secret is never written into a file, want %[1]s_file or %[1]s_env", key.Value)
			d.broken = append(d.broken, p+"_file", p+"_env")
			return
		}
		message := fmt.Sprintf("unknown key %s", quote(key.Value))
		if near := nearest(key.Value, fields.keys); near != "" {
			message += fmt.Sprintf(", did you mean %s", near)
			d.broken = append(d.broken, child(path, near)) // it is not missing, only misspelt
		}
		d.note(key.Line, path, "%s; want %s", message, oneOf(fields.keys...))
	})
}

// fields are the keys that a struct type has.
type fields struct {
	keys    []string // in the order of the fields
	byKey   map[string]reflect.StructField
	secrets []string // keys of secrets without _file or _env
}

// fieldsOf reads the keys from the yaml tags, or the json tags of types that are also a wire format. A Secret has two keys.
func fieldsOf(t reflect.Type) fields {
	out := fields{byKey: map[string]reflect.StructField{}}
	add := func(key string, f reflect.StructField) {
		out.keys = append(out.keys, key)
		out.byKey[key] = f
	}
	for _, f := range reflect.VisibleFields(t) {
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			tag = f.Tag.Get("json")
		}
		key, options, _ := strings.Cut(tag, ",")
		switch {
		case options == "inline" && f.Type == reflect.TypeFor[Secret]():
			add("file", f)
			add("env", f)
		case key == "" || key == "-" || !f.IsExported():
		case f.Type == reflect.TypeFor[Secret]():
			add(key+"_file", f)
			add(key+"_env", f)
			out.secrets = append(out.secrets, key)
		default:
			add(key, f)
			if t == reflect.TypeFor[rollout.Stage]() && key == "duration" {
				out.keys = append(out.keys, "duration_minutes")
			}
		}
	}
	return out
}

// scalar decodes a single value.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	wrong := func() { d.problem(n.Line, path, "%s, want %s", shown(n), want(v.Type())) }
	if n.Kind != yaml.ScalarNode {
		wrong()
		return
	}
	switch v.Type() {
	case reflect.TypeFor[rollout.Weight]():
		d.weight(n, v, path)
		return
	case reflect.TypeFor[rollout.Duration](), reflect.TypeFor[time.Duration]():
		duration, ok := durationOf(n)
		if !ok {
			wrong()
			return
		}
		v.SetInt(int64(duration))
		return
	case reflect.TypeFor[Path]():
		d.path(n, v, path)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(n.Value)); err != nil {
			d.problem(n.Line, path, "%s, want %s", shown(n), want(v.Type()))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		d.text(n, v, path)
	case reflect.Bool:
		var b bool
		if n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
			wrong()
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64, reflect.Int32:
		var i int64
		if n.ShortTag() != "!!int" || n.Decode(&i) != nil || v.OverflowInt(i) {
			wrong()
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		f, ok := numberOf(n)
		if !ok {
			wrong()
			return
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("config: no way to decode a %s at %s", v.Type(), path)) // a mistake in this program, not in the file
	}
}

// text decodes a string. A number or a truth value is refused rather than guessed at: 1.10 is not "1.1".
func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) {
	switch {
	case n.ShortTag() == "!!str":
		v.SetString(n.Value)
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0:
		d.problem(n.Line, path, "%s, want text; put it in quotes: \"%s\"", shown(n), n.Value)
	default:
		d.problem(n.Line, path, "%s, want text", shown(n))
	}
}

// weight decodes a share of traffic.
func (d *decoder) weight(n *yaml.Node, v reflect.Value, path string) {
	f, ok := numberOf(n)
	if !ok {
		d.problem(n.Line, path, "%s, want a fraction from 0.0001 to 1, such as 0.05 for 5%%", shown(n))
		return
	}
	w, err := rollout.WeightFromFraction(f)
	if err != nil {
		d.problem(n.Line, path, "%s, want a fraction from 0.0001 to 1 in steps of 0.0001, such as 0.05 for 5%%", n.Value)
		return
	}
	v.SetInt(int64(w))
}

// numberOf is a number that is finite.
func numberOf(n *yaml.Node) (float64, bool) {
	var f float64
	if tag := n.ShortTag(); tag != "!!float" && tag != "!!int" {
		return 0, false
	}
	if n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// durationOf is text such as "30m", or the number 0.
func durationOf(n *yaml.Node) (time.Duration, bool) {
	if n.ShortTag() != "!!str" && n.Value != "0" {
		return 0, false
	}
	duration, err := time.ParseDuration(n.Value)
	return duration, err == nil
}
