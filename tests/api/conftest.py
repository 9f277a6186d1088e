from serving import serve_parked as serve

__all__ = ["serve"]
