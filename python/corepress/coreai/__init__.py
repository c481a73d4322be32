"""Core AI models (``.aimodel``): their compression, and what it needs."""
