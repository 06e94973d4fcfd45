package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// Decode reads one JSON document without unknown keys into out. Its errors speak of JSON's types, not of Go's.
func Decode(raw []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return inWordsOfJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("want one JSON document and nothing after it")
	}
	return nil
}

func inWordsOfJSON(err error) error {
	var mistyped *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mistyped):
		return fmt.Errorf("%s: want %s, got %s", cmp.Or(mistyped.Field, "the document"), wanted(mistyped.Type), mistyped.Value)
	case errors.Is(err, io.EOF):
		return errors.New("want a JSON document, got nothing")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON document ends too soon")
	}
	return err
}

// wanted is how JSON calls what a Go value is made of.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "an array"
	}
	return "an object"
}
