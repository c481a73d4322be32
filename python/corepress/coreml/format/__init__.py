"""The bytes of packages: files, protobuf messages, the weight file. Nothing here knows a spec."""
