"use strict";

const place = document.getElementById("api-docs");
// Without a validator's badge and without "try it out": nothing leaves this page but the question for the document.
window.SwaggerUIBundle({ domNode: place, url: place.dataset.document, validatorUrl: null, supportedSubmitMethods: [] });
