"""What every request and answer goes through, one subject a module, as plain ASGI.

``api.app`` puts the layers in order.
"""
