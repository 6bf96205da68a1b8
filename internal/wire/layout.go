package wire

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

type nodeKind uint8

const (
	fixedNode  nodeKind = iota // as many bytes as it is wide
	stringNode                 // string, *string
	bytesNode                  // []byte
	arrayNode                  // []T
	structNode                 // T
	maybeNode                  // *T
)

// node is one field of a layout, or one element.
type node struct {
	kind   nodeKind
	width  int           // fixedNode: bytes on the wire
	size   int           // bytes of memory that one element takes when decoded
	elem   *node         // arrayNode, maybeNode
	fields []*node       // structNode, in the order of the wire
	tagged bool          // structNode: has a section of tagged fields at its end
	tags   map[int]*node // structNode: the tagged fields that kmsg decodes
}

// layout is the shape of one version of a request.
type layout struct {
	root     *node
	flexible bool
}

// deriveLayout derives a request's layout: it encodes the request with one field changed at a
// time, and compares the bytes. kmsg must know the version.
func deriveLayout(key, version int16) *layout {
	r := kmsg.RequestForKey(key)
	r.SetVersion(version)
	p := probe{key: key, version: version, flexible: r.IsFlexible()}
	return &layout{p.probeStruct(reflect.TypeOf(r).Elem(), nil), p.flexible}
}

type probe struct {
	key, version int16
	flexible     bool
}

// The key and the value of a tagged field that no API has. It marks a struct's section of
// tagged fields in the encoded bytes.
const (
	markKey   = 9999
	markValue = "\xa5where the tags are\x5a"
)

func (p probe) probeStruct(t reflect.Type, path []int) *node {
	n := &node{kind: structNode, size: int(t.Size())}
	f, ok := t.FieldByName("UnknownTags")
	n.tagged = ok && p.flexible && isTags(f.Type)
	base, tagsAt := p.encodeChanged(path, n.tagged, nil)
	for i := range t.NumField() {
		f := t.Field(i)
		if isTags(f.Type) || len(path) == 0 && f.Name == "Version" {
			continue
		}
		got, _ := p.encodeChanged(path, n.tagged, func(s reflect.Value) { changeField(s.Field(i)) })
		at := 0
		for at < len(base) && at < len(got) && base[at] == got[at] {
			at++
		}
		if at == len(base) && at == len(got) {
			continue // this version does not have it
		}
		field := p.probeField(f.Type, append(slices.Clip(path), i))
		if !n.tagged || at != tagsAt {
			n.fields = append(n.fields, field)
			continue
		}
		_, skip := binary.Uvarint(got[at:]) // the number of tags; then the first one's key
		tag, _ := binary.Uvarint(got[at+skip:])
		if n.tags == nil {
			n.tags = map[int]*node{}
		}
		n.tags[int(tag)] = field
	}
	return n
}

func (p probe) probeField(t reflect.Type, path []int) *node {
	size := int(t.Size())
	switch t.Kind() {
	case reflect.String:
		return &node{kind: stringNode, size: size}
	case reflect.Pointer:
		if t.Elem().Kind() == reflect.String {
			return &node{kind: stringNode, size: size + int(t.Elem().Size())}
		}
		return &node{kind: maybeNode, elem: p.probeStruct(t.Elem(), path), size: size}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &node{kind: bytesNode, size: size}
		}
		return &node{kind: arrayNode, elem: p.probeField(t.Elem(), path), size: size}
	case reflect.Struct:
		return p.probeStruct(t, path)
	default: // numbers and ids are as wide on the wire as in memory
		return &node{kind: fixedNode, width: size, size: size}
	}
}

// encodeChanged returns the request with the struct at path changed, and where that
// struct's section of tagged fields begins.
func (p probe) encodeChanged(path []int, tagged bool, change func(reflect.Value)) (b []byte, tagsAt int) {
	r := kmsg.RequestForKey(p.key)
	setDefaults(reflect.ValueOf(r))
	r.SetVersion(p.version)
	v := reachField(reflect.ValueOf(r).Elem(), path)
	if change != nil {
		change(v)
	}
	if !tagged {
		return r.AppendTo(nil), -1
	}
	if tags, ok := reflect.TypeAssert[*kmsg.Tags](v.FieldByName("UnknownTags").Addr()); ok {
		tags.Set(markKey, []byte(markValue))
	}
	mark := binary.AppendUvarint(nil, markKey)
	mark = binary.AppendUvarint(mark, uint64(len(markValue)))
	b = r.AppendTo(nil)
	return b, bytes.Index(b, append(mark, markValue...)) - 1 // the number of tagged fields is before it
}

// reachField returns the value at the path of fields from v. It puts one element with its
// defaults into every array and pointer on the way.
func reachField(v reflect.Value, path []int) reflect.Value {
	for _, i := range path {
		switch v = v.Field(i); v.Kind() {
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
			setDefaults(v.Addr())
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			setDefaults(v)
			v = v.Elem()
		default:
		}
	}
	return v
}

func isTags(t reflect.Type) bool { return t == reflect.TypeFor[kmsg.Tags]() }

func setDefaults(p reflect.Value) {
	if d, ok := reflect.TypeAssert[interface{ Default() }](p); ok {
		d.Default()
	}
}

// changeField gives a field another value than the one it has.
func changeField(f reflect.Value) {
	switch f.Kind() {
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		f.SetInt(f.Int() ^ 0x55)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		f.SetUint(f.Uint() ^ 0x55)
	case reflect.Float64:
		f.SetFloat(f.Float() + 1.5)
	case reflect.String:
		f.SetString(f.String() + "x")
	case reflect.Pointer:
		changePointer(f)
	case reflect.Slice:
		if f.Type().Elem().Kind() == reflect.Uint8 {
			f.SetBytes(append(f.Bytes(), 'x'))
			return
		}
		f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		setDefaults(f.Index(0).Addr())
	case reflect.Array:
		f.Index(0).SetUint(f.Index(0).Uint() ^ 0x55)
	case reflect.Struct:
		for _, in := range f.Fields() {
			if !isTags(in.Type()) {
				changeField(in)
			}
		}
	default:
		panic("BUG: kmsg has a kind of field that the guard does not know: " + f.Type().String())
	}
}

func changePointer(f reflect.Value) {
	switch {
	case f.Type().Elem().Kind() == reflect.String:
		x := "x"
		if !f.IsNil() {
			x = f.Elem().String() + "x"
		}
		f.Set(reflect.ValueOf(&x))
	case f.IsNil():
		f.Set(reflect.New(f.Type().Elem()))
		setDefaults(f)
	default:
		f.SetZero()
	}
}
